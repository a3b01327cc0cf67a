"""An OpenAI-compatible endpoint: one call, tried again where another try may help, within limits on all calls."""

import asyncio
import contextlib
import contextvars
import email.utils
import json
import os
import random
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx2
import openai
import tenacity
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eval.endpoints.costs import Messages, Sizes, size
from eval.endpoints.pace import Pace
from eval.endpoints.proxies import is_loopback
from eval.protocols.verdicts import is_cut
from salsa.config.judge import Judge
from salsa.runtime.errors import UserError
from salsa.runtime.texts import without_lone_surrogates

SHORTEST_KEY = 8
LONGEST_LINE = 300  # characters of what an endpoint says
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 60.0
AGAIN_STATUS = (408, 409, 429)
SPENT_CODES = ("insufficient_quota", "billing_hard_limit_reached")
EXPECTED: contextvars.ContextVar[float] = contextvars.ContextVar("tokens that this call may take", default=0.0)
TEXT_PARTS = ("text", "output_text")
TRIES_WITHOUT_TEXT = 2  # each is paid for, and at temperature 0 the next is often the same
TOO_LONG = re.compile(r"context.length|context.window|maximum context|too long|too many tokens", re.IGNORECASE)


class Passing(Exception):
    """Another try may help; after `seconds`, where the endpoint says so. `fix` is for when none has."""

    def __init__(
        self, what: str, seconds: float | None = None, fix: str = "check judge.base_url and that it is running"
    ):
        super().__init__(what)
        self.seconds, self.fix = seconds, fix


class NoChoice(Passing):
    """A reply without an answer; some filters answer so, however often one asks."""


class NoText(Passing):
    """A reply without a text: it holds reasoning alone, or nothing. Another try may bring one."""


class Refused(Exception):
    """The endpoint will not answer this prompt."""


class TooLong(Refused):
    """This prompt leaves no room for an answer in the judge's context."""


class Final(Exception):
    """No try will help until `fix` is done."""

    def __init__(self, what: str, fix: str):
        super().__init__(what)
        self.fix = fix


class Stopped(Exception):
    """No call is begun any more."""


class Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class Part(Lenient):
    type: str = "text"
    text: str | None = None


class Message(Lenient):
    """`content` is a text or a list of parts; Mistral's endpoint puts the reasoning into a part of its own."""

    content: str | list[Part] | None = None
    refusal: str | None = None

    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text or "" for part in self.content if part.type in TEXT_PARTS)
        return self.content or ""


class Choice(Lenient):
    message: Message
    finish_reason: str | None = None


class Tokens(BaseModel):
    model_config = ConfigDict(extra="allow")
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(0, ge=0)


class Completion(Lenient):
    """What is read of a chat completion; endpoints differ in all else."""

    model: str | None = None
    choices: list[Choice]
    usage: Tokens | None = None


@dataclass(frozen=True)
class Reply:
    """What goes into a ledger's line."""

    outcome: Literal["answered", "refused", "too_long", "failed"]
    text: str = ""
    finish_reason: str | None = None
    model: str | None = None
    usage: dict[str, Any] | None = None
    error: str | None = None


def read_completion(body: bytes, key: str) -> Completion:
    """A body as a chat completion; Passing, in words about the endpoint, if it is none."""
    with contextlib.suppress(ValidationError):
        return Completion.model_validate_json(body)
    # Pydantic's parser is the fast one, and refuses lone surrogates.
    shown = beginning(body, key)
    try:
        value = without_lone_surrogates(json.loads(body))
    except (ValueError, RecursionError):
        raise Passing(f"the endpoint's reply is no JSON: {shown}") from None
    if not isinstance(value, dict) or "choices" not in value:
        raise Passing(f"the endpoint's reply has no choices: {shown}")
    try:
        return Completion.model_validate(value)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise Passing(f"the endpoint's reply is no chat completion, see {where}: {shown}") from None


def read_reply(body: bytes, key: str) -> Reply:
    """A chat completion's body as a reply, Passing if it is none; `key` is shown in no message."""
    completion = read_completion(body, key)
    usage = completion.usage.model_dump(exclude_none=True) if completion.usage else None
    if not completion.choices:
        raise NoChoice(f"the endpoint's reply has no choices: {beginning(body, key)}")
    choice = completion.choices[0]
    refused = choice.finish_reason == "content_filter" or bool(choice.message.refusal)
    text = choice.message.text()
    if choice.finish_reason == "error":
        raise Passing(f"the endpoint's reply ended in an error: {beginning(body, key)}")
    if not text.strip() and not refused and not is_cut(choice.finish_reason):
        raise NoText(
            "the endpoint's reply has no text (reasoning is not read as one)",
            fix="look at what it serves, or take another judge",
        )
    why = (choice.message.refusal or "content_filter") if refused else None
    return Reply("refused" if refused else "answered", text, choice.finish_reason, completion.model, usage, why)


def one_line(text: str, key: str) -> str:
    """The beginning of what an endpoint says as one line, without the key."""
    text = " ".join(text.split())
    # A placeholder such as "x", for an endpoint that needs none, is no secret.
    return (text.replace(key, "[key]") if len(key) >= SHORTEST_KEY else text)[:LONGEST_LINE]


def beginning(body: bytes, key: str) -> str:
    """The beginning of a reply's body, for a message."""
    return one_line(body.decode(errors="replace"), key)


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """The seconds that an endpoint asks to wait: in `retry-after-ms`, or in `retry-after` as seconds or as a date."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        with contextlib.suppress(KeyError, ValueError):
            return max(0.0, float(headers[name]) * unit)
    with contextlib.suppress(KeyError, ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(headers["retry-after"]).timestamp() - now)
    return None


def wait_seconds(state: tenacity.RetryCallState) -> float:
    """What the endpoint asks for, else twice as long each time, shortened at random so that calls do not return
    together. No result depends on the draw, and processes are to differ: it has no seed."""
    error = state.outcome.exception() if state.outcome else None
    backoff = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (state.attempt_number - 1))
    if isinstance(error, Passing) and error.seconds is not None:
        return error.seconds + random.random() * FIRST_WAIT_SECONDS / 5
    return backoff * (1 - random.random() / 2)


class Client(openai.DefaultAioHttpClient):
    """The openai client's way to the network, with the limits on it: a call holds its place while it is on the wire
    and not while it waits for another try."""

    def __init__(self, settings: Judge, base_url: str, pace: Pace, stopped: asyncio.Event):
        connections = httpx2.Limits(
            max_connections=settings.concurrency, max_keepalive_connections=settings.concurrency, keepalive_expiry=30
        )
        # httpx prefers a pattern with a host to the environment's, which name a scheme alone.
        direct = {f"all://{urlsplit(base_url).netloc}": None} if is_loopback(base_url) else {}
        try:
            # No redirect is followed: the key is for the address that the config names.
            super().__init__(timeout=None, limits=connections, mounts=direct, follow_redirects=False)
        except ValueError as error:
            raise UserError(
                f"judge: the environment's proxy cannot be used ({error}): correct HTTP_PROXY, HTTPS_PROXY or ALL_PROXY"
            ) from None
        self.settings, self.pace, self.stopped = settings, pace, stopped
        self.slots = asyncio.Semaphore(settings.concurrency)

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        async with self.slots:
            await self.pace.wait(EXPECTED.get())
            if self.stopped.is_set():
                raise Stopped
            try:
                async with asyncio.timeout(self.settings.timeout_seconds):
                    response = await super().send(request, **options)
            except TimeoutError:
                raise httpx2.ReadTimeout(f"no answer in {self.settings.timeout_seconds:g} s") from None
            except httpx2.ConnectTimeout as error:
                # aiohttp's transport calls every lost connection this; the one limit on time is the one above.
                raise httpx2.ConnectError(str(error)) from error
        # The next call is on its way before this reply is worked on: at 64 in flight that is a tenth of the throughput.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return response


class Endpoint:
    """After `stopped` is set no call is begun, and those on the wire end by themselves."""

    def __init__(self, settings: Judge, base_url: str, pace: Pace, sizes: Sizes, stopped: asyncio.Event):
        self.settings, self.key = settings, api_key(settings)
        self.pace, self.sizes, self.stopped = pace, sizes, stopped
        self.openai = openai.AsyncOpenAI(
            api_key=self.key,
            base_url=base_url,
            max_retries=0,
            http_client=Client(settings, base_url, pace, stopped),
            timeout=None,
        )

    async def call(self, key: str, messages: Messages, parameters: Mapping[str, Any]) -> Reply:
        """The judge's reply to the call of this key; Passing when the last try has failed, Final, or Stopped."""
        body = {"model": self.settings.model, "messages": messages, **parameters}
        expected = self.sizes.prompt(size(messages)) + self.sizes.answer(self.settings.max_tokens)
        EXPECTED.set(expected)
        retrying = tenacity.AsyncRetrying(
            stop=self._tried_enough,
            wait=wait_seconds,
            retry=tenacity.retry_if_exception_type(Passing),
            sleep=self._sleep,
            reraise=True,
        )
        try:
            reply: Reply = await retrying(self._once, key, body)
        except (Refused, NoChoice) as error:
            return Reply("too_long" if isinstance(error, TooLong) else "refused", error=str(error))
        if reply.usage:
            self.pace.settle(reply.usage["prompt_tokens"] + reply.usage["completion_tokens"] - expected)
        return reply

    def _tried_enough(self, state: tenacity.RetryCallState) -> bool:
        """Whether a call has been tried often enough."""
        without_text = state.outcome is not None and isinstance(state.outcome.exception(), NoText)
        most = self.settings.retries + 1
        return state.attempt_number >= (min(most, TRIES_WITHOUT_TEXT) if without_text else most)

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopped.wait(), seconds)

    async def _once(self, key: str, body: Mapping[str, Any]) -> Reply:
        """One try."""
        with self._typed(body):
            # chat.completions.create would walk through each message to translate its keys, of which none has another
            # name: 0.3 ms a call.
            raw = await self.openai.post("/chat/completions", body=body, cast_to=httpx2.Response)
        return read_reply(raw.content, self.key)

    @contextlib.contextmanager
    def _typed(self, body: Mapping[str, Any]) -> Iterator[None]:
        """Errors of the openai client as Passing, Final or Refused."""
        try:
            yield
        except openai.APIStatusError as error:
            raise self._meaning(error.status_code, error.body, error.response.headers, body) from None
        except openai.APITimeoutError as error:
            raise Passing(str(error.__cause__)) from None
        except openai.APIConnectionError as error:
            raise Passing(f"connection error ({error.__cause__})") from None

    def _meaning(self, status: int, error: object, headers: Mapping[str, str], body: Mapping[str, Any]) -> Exception:
        """What an HTTP status that is no success means for a call, by what the endpoint says in `error`."""
        details = error if isinstance(error, dict) else {"message": error}
        said = self._line(status, details.get("message"))
        if status in (301, 302, 303, 307, 308):
            elsewhere = headers.get("location", "another address")
            return Final(
                f"HTTP {status}, a redirect to {elsewhere}", "name that address in judge.base_url if you trust it"
            )
        if status in (401, 403):
            # What an endpoint says of a wrong key may hold parts of it.
            return Final(f"HTTP {status}", f"check the key in {self.settings.api_key_env}")
        if status == 402 or (status == 429 and details.get("code") in SPENT_CODES):
            return Final(said, "the account has nothing left: fill it up")
        if status in AGAIN_STATUS or status >= 500:
            seconds = retry_after(headers, time.time())
            if seconds is not None and seconds > self.settings.patience_seconds:
                return Final(
                    f"{said}, and it asks to wait {seconds:.0f} s", "come back then, or raise patience_seconds"
                )
            return Passing(said, seconds, "wait, or lower judge.concurrency or judge.requests_per_minute")
        if status not in (400, 413, 422):
            return Final(said, "check judge.model and judge.base_url")
        if status == 413 or TOO_LONG.search(said):
            return TooLong(said)
        parameters = body.keys() - {"messages"}
        quoted = [name for name in parameters - {"model"} if re.search(rf"""['"`]{re.escape(name)}['"`]""", said)]
        if details.get("param") in parameters or quoted:
            # Not this prompt but every call would be refused.
            return Final(said, "correct judge.model, temperature, limit_parameter or parameters")
        return Refused(said)

    def _line(self, status: int, message: object) -> str:
        """An HTTP error as one line, without the key."""
        text = one_line(str(message or ""), self.key)
        return f"HTTP {status} ({text})" if text else f"HTTP {status}"

    async def close(self) -> None:
        await self.openai.close()


def api_key(settings: Judge) -> str:
    """The key from the environment; the gold judge needs none."""
    if settings.kind == "gold":
        return "none"
    # Keys that come from files often end with a line break.
    key = os.environ.get(settings.api_key_env, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError(
            f"judge.api_key_env: the environment variable {settings.api_key_env} holds characters that no key has: "
            "export it anew"
        )
    if not key:
        raise UserError(
            f"judge.api_key_env: the environment variable {settings.api_key_env} is not set: export the judge's key "
            "in it (any text for an endpoint that needs none)"
        )
    return key
