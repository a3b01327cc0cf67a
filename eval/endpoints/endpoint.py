"""Call an OpenAI-compatible endpoint: retries, typed errors, concurrency and rate limits."""

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
LONGEST_LINE = 300  # characters quoted from an endpoint
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 60.0
RETRY_STATUS = (408, 409, 429)
SPENT_CODES = ("insufficient_quota", "billing_hard_limit_reached")
EXPECTED: contextvars.ContextVar[float] = contextvars.ContextVar("tokens that this call may take", default=0.0)
TEXT_PARTS = ("text", "output_text")
TRIES_WITHOUT_TEXT = 2  # each is paid, and at temperature 0 the next is often the same
TOO_LONG = re.compile(r"context.length|context.window|maximum context|too long|too many tokens", re.IGNORECASE)


class Passing(Exception):
    """A retry may help, after `seconds` if the endpoint says so. `fix` is the advice if all retries fail."""

    def __init__(
        self, what: str, seconds: float | None = None, fix: str = "check judge.base_url and that it is running"
    ):
        super().__init__(what)
        self.seconds, self.fix = seconds, fix


class NoChoice(Passing):
    """A reply without choices. Some content filters answer like this, so after all retries it counts as refused."""


class NoText(Passing):
    """A reply without text: only reasoning, or nothing."""


class Refused(Exception):
    """The endpoint declines this prompt."""


class TooLong(Refused):
    """The prompt leaves no room for a reply in the judge's context."""


class Final(Exception):
    """No retry will help until `fix` is done."""

    def __init__(self, what: str, fix: str):
        super().__init__(what)
        self.fix = fix


class Stopped(Exception):
    """No further calls are started."""


class Lenient(BaseModel):
    """A part of a reply; unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class Part(Lenient):
    """A part of a message's content."""

    type: str = "text"
    text: str | None = None


class Message(Lenient):
    """A reply's message. `content` is text or a list of parts; Mistral's endpoint puts reasoning into its own part."""

    content: str | list[Part] | None = None
    refusal: str | None = None

    def text(self) -> str:
        """The text of the message, without reasoning parts."""
        if isinstance(self.content, list):
            return "".join(part.text or "" for part in self.content if part.type in TEXT_PARTS)
        return self.content or ""


class Choice(Lenient):
    """The reply to one request."""

    message: Message
    finish_reason: str | None = None


class Tokens(BaseModel):
    """Token counts, with whatever else the endpoint reports."""

    model_config = ConfigDict(extra="allow")
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(0, ge=0)


class Completion(Lenient):
    """The fields of a chat completion that we use; endpoints differ in the rest."""

    model: str | None = None
    choices: list[Choice]
    usage: Tokens | None = None


@dataclass(frozen=True)
class Reply:
    """The result of a call, as stored in the ledger."""

    outcome: Literal["answered", "refused", "too_long", "failed"]
    text: str = ""
    finish_reason: str | None = None
    model: str | None = None
    usage: dict[str, Any] | None = None
    error: str | None = None


def read_completion(body: bytes, key: str) -> Completion:
    """Parse a chat completion; raises Passing if the body is not one. `key` never appears in a message."""
    with contextlib.suppress(ValidationError):
        return Completion.model_validate_json(body)
    # Pydantic's parser is fast but refuses lone surrogates.
    shown = beginning(body, key)
    try:
        value = without_lone_surrogates(json.loads(body))
    except (ValueError, RecursionError):
        raise Passing(f"the endpoint's reply is not JSON: {shown}") from None
    if not isinstance(value, dict) or "choices" not in value:
        raise Passing(f"the endpoint's reply has no choices: {shown}")
    try:
        return Completion.model_validate(value)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise Passing(f"the endpoint's reply is not a chat completion, see {where}: {shown}") from None


def read_reply(body: bytes, key: str) -> Reply:
    """Convert the body of a chat completion to a Reply. Raises Passing if it is not usable."""
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
            "the endpoint's reply has no text (reasoning does not count)",
            fix="check what the endpoint serves, or use another judge",
        )
    why = (choice.message.refusal or "content_filter") if refused else None
    return Reply("refused" if refused else "answered", text, choice.finish_reason, completion.model, usage, why)


def one_line(text: str, key: str) -> str:
    """The beginning of a text as one line, with the key masked."""
    text = " ".join(text.split())
    # A short placeholder such as "x", for an endpoint without keys, is no secret.
    return (text.replace(key, "[key]") if len(key) >= SHORTEST_KEY else text)[:LONGEST_LINE]


def beginning(body: bytes, key: str) -> str:
    """The beginning of a reply's body, for an error message."""
    return one_line(body.decode(errors="replace"), key)


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait as requested by the endpoint: `retry-after-ms`, or `retry-after` in seconds or as a date."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        with contextlib.suppress(KeyError, ValueError):
            return max(0.0, float(headers[name]) * unit)
    with contextlib.suppress(KeyError, ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(headers["retry-after"]).timestamp() - now)
    return None


def wait_seconds(state: tenacity.RetryCallState) -> float:
    """Seconds until the next attempt: what the endpoint asks for, else exponential backoff with jitter.

    The jitter has no seed on purpose: processes should differ, and no result depends on it.
    """
    error = state.outcome.exception() if state.outcome else None
    backoff = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (state.attempt_number - 1))
    if isinstance(error, Passing) and error.seconds is not None:
        return error.seconds + random.random() * FIRST_WAIT_SECONDS / 5
    return backoff * (1 - random.random() / 2)


class Client(openai.DefaultAioHttpClient):
    """HTTP client of the openai client, with concurrency and rate limits.

    A call takes a slot only while it is on the wire, not while it waits for a retry.
    """

    def __init__(self, settings: Judge, base_url: str, pace: Pace, stopped: asyncio.Event):
        connections = httpx2.Limits(
            max_connections=settings.concurrency, max_keepalive_connections=settings.concurrency, keepalive_expiry=30
        )
        # A pattern with a host takes precedence over the environment's proxies, which name only a scheme.
        direct = {f"all://{urlsplit(base_url).netloc}": None} if is_loopback(base_url) else {}
        try:
            # Follow no redirects: the key is meant only for the configured address.
            super().__init__(timeout=None, limits=connections, mounts=direct, follow_redirects=False)
        except ValueError as error:
            raise UserError(
                f"judge: cannot use the environment's proxy ({error}): correct HTTP_PROXY, HTTPS_PROXY or ALL_PROXY"
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
                # aiohttp's transport raises this for every lost connection; the real timeout is the one above.
                raise httpx2.ConnectError(str(error)) from error
        # Let the next call start before this reply is processed; with 64 calls in flight this gains 10 % throughput.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return response


class Endpoint:
    """An endpoint. Once `stopped` is set no call is started; calls on the wire still finish."""

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
        """Make a call, with retries.

        `key` is the call's ledger key. Raises Passing after the last attempt, or Final.
        """
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
        without_text = state.outcome is not None and isinstance(state.outcome.exception(), NoText)
        most = self.settings.retries + 1
        return state.attempt_number >= (min(most, TRIES_WITHOUT_TEXT) if without_text else most)

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopped.wait(), seconds)

    async def _once(self, key: str, body: Mapping[str, Any]) -> Reply:
        """One attempt."""
        with self._typed(body):
            # Faster than chat.completions.create, which spends 0.3 ms per call on renaming keys that need no renaming.
            raw = await self.openai.post("/chat/completions", body=body, cast_to=httpx2.Response)
        return read_reply(raw.content, self.key)

    @contextlib.contextmanager
    def _typed(self, body: Mapping[str, Any]) -> Iterator[None]:
        """Convert errors of the openai client to Passing, Final or Refused."""
        try:
            yield
        except openai.APIStatusError as error:
            raise self._meaning(error.status_code, error.body, error.response.headers, body) from None
        except openai.APITimeoutError as error:
            raise Passing(str(error.__cause__)) from None
        except openai.APIConnectionError as error:
            raise Passing(f"connection error ({error.__cause__})") from None

    def _meaning(self, status: int, error: object, headers: Mapping[str, str], body: Mapping[str, Any]) -> Exception:
        """The exception for an HTTP error status; `error` is the endpoint's error object."""
        details = error if isinstance(error, dict) else {"message": error}
        message = self._line(status, details.get("message"))
        if status in (301, 302, 303, 307, 308):
            elsewhere = headers.get("location", "another address")
            return Final(
                f"HTTP {status}, a redirect to {elsewhere}", "set judge.base_url to that address if you trust it"
            )
        if status in (401, 403):
            # No quote: the endpoint's message about a wrong key may contain part of it.
            return Final(f"HTTP {status}", f"check the key in {self.settings.api_key_env}")
        if status == 402 or (status == 429 and details.get("code") in SPENT_CODES):
            return Final(message, "the account's credit is used up: add credit")
        if status in RETRY_STATUS or status >= 500:
            seconds = retry_after(headers, time.time())
            if seconds is not None and seconds > self.settings.patience_seconds:
                return Final(
                    f"{message}, and it asks to wait {seconds:.0f} s", "rerun then, or raise judge.patience_seconds"
                )
            return Passing(message, seconds, "wait, or lower judge.concurrency or judge.requests_per_minute")
        if status not in (400, 413, 422):
            return Final(message, "check judge.model and judge.base_url")
        if status == 413 or TOO_LONG.search(message):
            return TooLong(message)
        parameters = body.keys() - {"messages"}
        quoted = [name for name in parameters - {"model"} if re.search(rf"""['"`]{re.escape(name)}['"`]""", message)]
        if details.get("param") in parameters or quoted:
            # The problem is a parameter, so every call would be refused.
            return Final(message, "correct judge.model, temperature, limit_parameter or parameters")
        return Refused(message)

    def _line(self, status: int, message: object) -> str:
        """An HTTP error as one line, with the key masked."""
        text = one_line(str(message or ""), self.key)
        return f"HTTP {status} ({text})" if text else f"HTTP {status}"

    async def close(self) -> None:
        """Close the connections."""
        await self.openai.close()


def api_key(settings: Judge) -> str:
    """The API key from the environment; the gold judge needs none."""
    if settings.kind == "gold":
        return "none"
    # Keys read from files often end with a line break.
    key = os.environ.get(settings.api_key_env, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError(
            f"judge.api_key_env: the environment variable {settings.api_key_env} contains characters that no key has: "
            "set it again"
        )
    if not key:
        raise UserError(
            f"judge.api_key_env: the environment variable {settings.api_key_env} is not set: export the judge's API "
            "key in it (any text for an endpoint without keys)"
        )
    return key
