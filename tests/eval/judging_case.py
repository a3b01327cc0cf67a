"""Judging small answers, for the tests here: a mini question set, two policies, and an endpoint of the tests' own."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from eval.gold_judge import completion
from salsa.sections import Judge
from salsa.world.tasks import solve

GOLD = {"kind": "gold", "model": "gold-judge"}
KEY = "sk-very-secret"


def answers(questions, write: Callable[[list[str]], str]) -> list[dict]:
    rows = []
    for question in questions:
        turns = question.get("turns") or [question["prompt"]]
        turns = [turn if isinstance(turn, str) else turn["content"] for turn in turns]
        said = [{"user": user, "assistant": write(turns[: n + 1])} for n, user in enumerate(turns)]
        name = str(question.get("question_id", question.get("uid")))
        rows.append({"question_id": name, "category": "x", "turns": said, "error": None})
    return rows


def right(turns: list[str]) -> str:
    return f"Sure! {', '.join(solve(turns) or ('?',))}. Happy to help."


def wrong(turns: list[str]) -> str:
    return "Sure! seven. Happy to help."


class Flaky:
    """A gold judge over HTTP whose replies `spoil(number, request)` may replace by (status, body)."""

    def __init__(self, spoil):
        self.count, lock = 0, threading.Lock()
        flaky = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    flaky.count += 1
                    number = flaky.count
                flaky.authorization = self.headers["Authorization"]
                status, body = spoil(number, request) or completion(request, Judge(**GOLD))
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("retry-after-ms", "1")
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def settings(self, **keys) -> dict:
        url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        return {"kind": "endpoint", "model": "m", "base_url": url, "api_key_env": "TEST_JUDGE_KEY", **keys}


def chat(text: str) -> tuple[int, dict]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return 200, {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
