"""Asking a judge: any OpenAI-compatible endpoint, through the openai client, with the ledger in between."""

import asyncio
import contextlib
import functools
import os
import time
from collections.abc import Iterator
from typing import Any

import openai
from openai.types import CompletionUsage

from eval.ledger import Entry, Ledger, call_key
from salsa.errors import UserError
from salsa.sections import Judge

Messages = list[dict[str, str]]
OTHERS_SECONDS = 0.1  # between two looks whether another process has finished a call
SHORTEST_KEY = 8
GOLD_DIALS = ("position_bias", "noise", "tie_margin", "strong_margin")


class JudgeClient:
    """Asks each conversation once: what the ledger holds is not asked, and equal calls in flight are one."""

    def __init__(self, settings: Judge, base_url: str, ledger: Ledger):
        self.settings, self.base_url, self.ledger = settings, base_url, ledger
        self.judge = judge_id(settings)
        self.parameters: dict[str, Any] = {"max_tokens": settings.max_tokens}
        if settings.temperature is not None:
            self.parameters["temperature"] = settings.temperature
        self.places = asyncio.Semaphore(settings.concurrency)
        self.calls: dict[str, asyncio.Task[Entry]] = {}
        self.asked = 0

    @functools.cached_property
    def key(self) -> str:
        return api_key(self.settings)

    @functools.cached_property
    def client(self) -> openai.AsyncOpenAI:
        """Made when there is something to ask: what the ledger holds needs no key."""
        settings = self.settings
        return openai.AsyncOpenAI(
            api_key=self.key,
            base_url=self.base_url,
            timeout=settings.timeout_seconds,
            max_retries=settings.retries,
        )

    async def ask(self, messages: Messages, sample: int = 0) -> Entry:
        """The ledger's line of this conversation, new or old; a UserError if the judge cannot be had."""
        key = call_key(self.judge, self.parameters, messages, sample)
        if key not in self.calls:
            self.calls[key] = asyncio.create_task(self._entry(key, messages, sample))
        return await self.calls[key]

    async def _entry(self, key: str, messages: Messages, sample: int) -> Entry:
        if key in self.ledger.finished:
            return self.ledger.finished[key]
        async with self.places:
            while not self.ledger.claim(key):
                await asyncio.sleep(OTHERS_SECONDS)
            try:
                # Another process may have finished it meanwhile.
                self.ledger.refresh()
                if key in self.ledger.finished:
                    return self.ledger.finished[key]
                entry = await self._call(key, messages, sample)
                self.asked += 1
                return entry
            finally:
                self.ledger.release(key)

    async def _call(self, key: str, messages: Messages, sample: int) -> Entry:
        entry: Entry = {
            "key": key,
            "judge": self.judge,
            "parameters": self.parameters,
            "sample": sample,
            "messages": messages,
            "outcome": "answered",
            "text": None,
            "finish_reason": None,
            "model": None,
            "usage": None,
            "cost": None,
            "seconds": None,
            "error": None,
        }
        begin = time.monotonic()
        try:
            reply = await self.client.chat.completions.create(
                model=self.settings.model,
                messages=messages,  # type: ignore[arg-type]
                **self.parameters,
            )
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            return self.ledger.add({**entry, "outcome": "refused", "error": self._line(error)})
        except openai.APIStatusError as error:
            self.ledger.add({**entry, "outcome": "failed", "error": self._line(error)})
            raise UserError(self._failure(f"HTTP {error.status_code}", self._mend(error.status_code))) from None
        except openai.APIError as error:
            self.ledger.add({**entry, "outcome": "failed", "error": self._line(error)})
            raise UserError(self._failure(self._line(error), "check judge.base_url and that it is running")) from None
        choice = reply.choices[0] if reply.choices else None
        text = choice.message.content if choice else None
        refused = choice is None or choice.finish_reason == "content_filter" or bool(choice.message.refusal)
        entry |= {
            "outcome": "refused" if refused else "answered",
            "text": text or "",
            "finish_reason": choice.finish_reason if choice else None,
            "model": reply.model,
            "usage": reply.usage.model_dump(exclude_none=True) if reply.usage else None,
            "cost": cost(self.settings, reply.usage),
            "seconds": round(time.monotonic() - begin, 3),
        }
        return self.ledger.add(entry)

    def _line(self, error: Exception) -> str:
        """An error as one line. What an endpoint says of a wrong key may hold the key."""
        text = str(error).strip().partition("\n")[0] or type(error).__name__
        if isinstance(error, openai.AuthenticationError):
            return "HTTP 401"
        # A placeholder such as "x", for an endpoint that needs none, is no secret.
        return text.replace(self.key, "[key]") if len(self.key) >= SHORTEST_KEY else text

    def used(self) -> dict[str, Any]:
        """What a run's record says of its calls."""
        entries = [task.result() for task in self.calls.values()]
        dates = sorted(entry["date"] for entry in entries)
        costs = [entry["cost"] for entry in entries if entry["cost"] is not None]
        return {
            "judge": self.settings.model,
            "judge_reports": sorted({entry["model"] for entry in entries if entry["model"]}),
            "calls": self.asked,
            "calls_from_ledger": len(entries) - self.asked,
            "first_call": dates[0] if dates else None,
            "last_call": dates[-1] if dates else None,
            "cost": round(sum(costs), 6) if costs else None,
        }

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
        if "client" in vars(self):
            await self.client.close()


def cost(settings: Judge, usage: CompletionUsage | None) -> float | None:
    """What a call cost, in the prices' currency; None where prices or tokens are not known."""
    if usage is None or settings.input_price is None or settings.output_price is None:
        return None
    return (usage.prompt_tokens * settings.input_price + usage.completion_tokens * settings.output_price) / 1e6


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
