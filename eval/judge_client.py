"""Asking a judge: any OpenAI-compatible endpoint, through the openai client, with the ledger in between."""

import asyncio
import contextlib
import os
from collections.abc import Iterator
from typing import Any

import openai

from eval.ledger import Entry, Ledger, call_key
from salsa.errors import UserError
from salsa.sections import Judge

Messages = list[dict[str, str]]
GOLD_DIALS = ("position_bias", "noise", "tie_margin", "strong_margin")


class JudgeClient:
    """Asks each conversation once: what the ledger holds is not asked, and equal calls in flight are one."""

    def __init__(self, settings: Judge, base_url: str, ledger: Ledger):
        self.settings, self.base_url, self.ledger = settings, base_url, ledger
        self.judge = judge_id(settings)
        self.client = openai.AsyncOpenAI(
            api_key=api_key(settings),
            base_url=base_url,
            timeout=settings.timeout_seconds,
            max_retries=settings.retries,
        )
        self.parameters: dict[str, Any] = {"max_tokens": settings.max_tokens}
        if settings.temperature is not None:
            self.parameters["temperature"] = settings.temperature
        self.places = asyncio.Semaphore(settings.concurrency)
        self.in_flight: dict[str, asyncio.Task[Entry]] = {}
        self.asked = self.known = 0

    async def ask(self, messages: Messages) -> Entry:
        """The ledger's line of this conversation, new or old; a UserError if the judge cannot be had."""
        key = call_key(self.judge, self.parameters, messages)
        if key in self.ledger.finished:
            self.known += 1
            return self.ledger.finished[key]
        if key not in self.in_flight:
            self.in_flight[key] = asyncio.create_task(self._call(key, messages))
        return await self.in_flight[key]

    async def _call(self, key: str, messages: Messages) -> Entry:
        entry: Entry = {
            "key": key,
            "judge": self.judge,
            "parameters": self.parameters,
            "messages": messages,
            "outcome": "answered",
            "text": None,
            "finish_reason": None,
            "usage": None,
            "error": None,
        }
        async with self.places:
            try:
                reply = await self.client.chat.completions.create(
                    model=self.settings.model,
                    messages=messages,  # type: ignore[arg-type]
                    **self.parameters,
                )
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                return self.ledger.add({**entry, "outcome": "refused", "error": first_line(error)})
            except openai.APIStatusError as error:
                self.ledger.add({**entry, "outcome": "failed", "error": first_line(error)})
                raise UserError(self._failure(f"HTTP {error.status_code}", self._mend(error.status_code))) from None
            except openai.APIError as error:
                self.ledger.add({**entry, "outcome": "failed", "error": first_line(error)})
                raise UserError(
                    self._failure(first_line(error), "check judge.base_url and that it is running")
                ) from None
        self.asked += 1
        choice = reply.choices[0] if reply.choices else None
        text = choice.message.content if choice else None
        refused = choice is None or choice.finish_reason == "content_filter" or bool(choice.message.refusal)
        entry |= {
            "outcome": "refused" if refused else "answered",
            "text": text or "",
            "finish_reason": choice.finish_reason if choice else None,
            "usage": reply.usage.model_dump(exclude_none=True) if reply.usage else None,
        }
        return self.ledger.add(entry)

    def _mend(self, status: int) -> str:
        if status in (401, 403):
            return f"check the key in {self.settings.api_key_env}"
        if status == 404:
            return "check judge.model and judge.base_url"
        return "wait, or lower judge.concurrency"

    def _failure(self, what: str, fix: str) -> str:
        return (
            f"judge {self.settings.model} at {self.base_url}: {what}: {fix}, then run again "
            f"({len(self.ledger.finished)} finished calls are kept in {self.ledger.path})"
        )

    async def close(self) -> None:
        await self.client.close()


def first_line(error: Exception) -> str:
    """An error as one line; keys do not occur in openai's messages but for 401s, whose text is left out."""
    if isinstance(error, openai.AuthenticationError):
        return "HTTP 401"
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def judge_id(settings: Judge) -> str:
    """Whom the ledger's calls were put to. The gold judge's dials are part of it: no request carries them."""
    if settings.kind == "endpoint":
        return settings.model
    return f"{settings.model}({', '.join(f'{name}={getattr(settings, name):g}' for name in GOLD_DIALS)})"


def api_key(settings: Judge) -> str:
    """The key from the environment; the gold judge needs none."""
    if settings.kind == "gold":
        return "none"
    key = os.environ.get(settings.api_key_env)
    if not key:
        raise UserError(
            f"judge.api_key_env: the environment variable {settings.api_key_env} is not set: export the judge's key "
            "in it (any text for an endpoint that needs none)"
        )
    return key


@contextlib.contextmanager
def endpoint(settings: Judge) -> Iterator[str]:
    """The judge's base URL; the gold judge is started on a free loopback port, and stopped."""
    if settings.kind == "endpoint":
        assert settings.base_url is not None
        yield settings.base_url
        return
    from eval.gold_judge import serving

    with serving(settings, port=0) as url:
        yield url
