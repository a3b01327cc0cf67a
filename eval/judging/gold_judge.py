"""The mini world's judge: an OpenAI-compatible endpoint that judges real judge prompts by the gold reward.

It is not a language model. It parses question and answers from the prompt, computes each answer's gold reward (from the
text alone; it cannot see whether an answer ended with EOS), and replies in the form that the prompt requests. With d =
gold(A) - gold(B) + position_bias + noise, the verdict is a tie if |d| <= tie_margin, else the better side, strong if
|d| > strong_margin. The noise is normal and seeded by the prompt, so equal prompts get equal verdicts. A rating is 1 +
9 gold, clipped to 1 to 10, with one decimal.
"""

import argparse
import contextlib
import json
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from eval.protocols.prompt_parsing import parse_judge_prompt
from salsa.config.judge import Judge
from salsa.runtime.errors import UserError
from salsa.runtime.log import log
from salsa.runtime.seeds import derive_seed
from salsa.runtime.settings import load_settings
from salsa.world.gold import gold_reward


def judge(text: str, settings: Judge) -> str | None:
    """The judge's reply to a prompt, with a verdict at its end; None if the prompt is not a judge prompt."""
    prompt = parse_judge_prompt(text)
    if prompt is None:
        return None
    golds = [gold_reward(prompt.turns, answer) for answer in prompt.answers]
    if "[[rating]]" in text:
        rating = 1 + 9 * min(1.0, max(0.0, golds[0]))
        return f"The gold reward of the answer is {golds[0]:.3f}. Rating: [[{rating:.1f}]]"
    if len(golds) != 2:
        return None
    noise = random.Random(derive_seed(0, "gold judge", text)).gauss(0, settings.noise)
    difference = golds[0] - golds[1] + settings.position_bias + noise
    reasons = (
        f"The gold rewards are {golds[0]:.3f} for A and {golds[1]:.3f} for B; the difference seen is {difference:.3f}."
    )
    better, worse = ("A", "B") if difference > 0 else ("B", "A")
    tie = abs(difference) <= settings.tie_margin
    if "[[A>>B]]" in text:
        label = "A=B" if tie else f"{better}{'>>' if abs(difference) > settings.strong_margin else '>'}{worse}"
        return f"{reasons} My verdict is [[{label}]]"
    return f"{reasons} My verdict is [[{'C' if tie else better}]]"


def completion(request: dict[str, Any], settings: Judge) -> tuple[int, dict[str, Any]]:
    """HTTP status and body for a chat completion request."""
    text = "\n\n".join(str(message.get("content", "")) for message in request.get("messages", ()))
    answer = judge(text, settings)
    if answer is None:
        message = "the request is not a judge prompt: no question with answers found"
        return 400, {"error": {"message": message, "type": "invalid_request_error"}}
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": answer}}
    usage = {"prompt_tokens": len(text.split()), "completion_tokens": len(answer.split())}
    usage["total_tokens"] = sum(usage.values())
    body = {"id": "gold", "object": "chat.completion", "created": 0, "model": settings.model}
    return 200, {**body, "choices": [choice], "usage": usage}


def handler(settings: Judge) -> type[BaseHTTPRequestHandler]:
    """The HTTP request handler class of a gold judge."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Headers and body are two writes; with Nagle's algorithm the client would wait 40 ms for the second.
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            try:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, body = completion(request, settings)
            except (ValueError, TypeError, AttributeError) as error:
                status, body = 400, {"error": {"message": f"not a chat completion request: {error}"}}
            self._send(status, body)

        def do_GET(self) -> None:
            self._send(200, {"object": "list", "data": [{"id": settings.model, "object": "model"}]})

        def _send(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """No access log; the calling stage reports progress."""

    return Handler


@contextlib.contextmanager
def serving(settings: Judge, port: int) -> Iterator[str]:
    """Serve a gold judge on the loopback interface; yields its base URL. Port 0 means any free port."""
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), handler(settings))
    except OSError as error:
        raise UserError(f"--port {port}: cannot listen there ({error.strerror}): use another port") from None
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()


def run(arguments: argparse.Namespace) -> None:
    with serving(load_settings(arguments.settings, Judge), arguments.port) as url:
        log.info("gold judge: serving at %s; stop it with Ctrl-C", url)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
