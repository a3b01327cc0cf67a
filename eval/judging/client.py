"""Judge client: looks each call up in the ledger first and asks the endpoint only if it is missing."""

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, Protocol

from eval.endpoints.batches import MOST_CALLS, BatchEndpoint
from eval.endpoints.budget import Budget
from eval.endpoints.costs import Sizes, cost, cut_at, most_tokens, price
from eval.endpoints.endpoint import Endpoint, Final, Passing, Stopped
from eval.endpoints.pace import Pace
from eval.endpoints.proxies import proxy_of
from eval.ledger.calls import Entry, Ledger, call_key
from eval.ledger.writer import Writer
from salsa.config.judge import Judge
from salsa.runtime.errors import UserError

Messages = list[dict[str, str]]
POLL_SECONDS = 0.1  # while another process makes the same call
STARTED_PER_SLOT = 8  # started items per call in flight, so that items waiting for a retry do not idle a slot
GRACE_SECONDS = 30.0  # for calls on the wire, which are paid, when a stage ends early
GOLD_DIALS = ("position_bias", "noise", "tie_margin", "strong_margin")


class SetAside(UserError):
    """A call failed for now; its item is retried in the second round."""


class JudgeSession(Protocol):
    """Anything that answers judge prompts: a JudgeClient, or an Estimate that only counts."""

    async def ask(self, messages: Messages, sample: int = 0) -> Entry:
        """The ledger entry for these messages."""
        ...


def judge_id(settings: Judge) -> str:
    """The judge's name in the ledger. For the gold judge it includes the dials, which no request carries."""
    if settings.kind == "endpoint":
        return settings.model
    return f"{settings.model}({', '.join(f'{name}={getattr(settings, name):g}' for name in GOLD_DIALS)})"


def call_parameters(settings: Judge) -> dict[str, Any]:
    """Request parameters besides model and messages."""
    parameters: dict[str, Any] = {settings.limit_parameter: settings.max_tokens}
    if settings.temperature is not None:
        parameters["temperature"] = settings.temperature
    return parameters | settings.parameters


def new_entry(settings: Judge, key: str, messages: Messages, sample: int) -> Entry:
    """A ledger entry for a call without a reply yet."""
    request = {"key": key, "judge": judge_id(settings), "parameters": call_parameters(settings), "sample": sample}
    reply = ("outcome", "text", "finish_reason", "model", "usage", "cost", "seconds", "error")
    return {**request, "messages": messages, **dict.fromkeys(reply)}


class JudgeClient:
    """A session that makes each call once: calls in the ledger are not repeated, and equal calls in flight are shared.

    `at_once` is the number of items to work on concurrently.
    """

    def __init__(self, settings: Judge, base_url: str, ledger: Ledger):
        self.settings, self.base_url, self.ledger = settings, base_url, ledger
        self.judge, self.parameters = judge_id(settings), call_parameters(settings)
        self.at_once = MOST_CALLS if settings.batch else STARTED_PER_SLOT * settings.concurrency
        self.writer = Writer(ledger)
        self.calls: dict[str, asyncio.Task[Entry]] = {}
        self.stopped = asyncio.Event()
        self.asked, self.spent = 0, 0.0
        self.last_round = False

    @functools.cached_property
    def sizes(self) -> Sizes:
        """Expected token counts, from this judge's calls in the ledger."""
        return Sizes(entry for entry in self.ledger.finished.values() if entry["judge"] == self.judge)

    @functools.cached_property
    def pace(self) -> Pace:
        """The rate limits."""
        limits = {"requests": self.settings.requests_per_minute, "tokens": self.settings.tokens_per_minute}
        rates = {name: rate for name, rate in limits.items() if rate is not None and not self.settings.batch}
        return Pace(self.ledger.folder / "pace.json", self.judge, rates)

    @functools.cached_property
    def endpoint(self) -> Endpoint:
        """The endpoint, created at the first new call: reading the ledger needs no API key."""
        arguments = (self.settings, self.base_url, self.pace, self.sizes, self.stopped)
        return BatchEndpoint(*arguments, folder=self.ledger.folder) if self.settings.batch else Endpoint(*arguments)

    @functools.cached_property
    def budget(self) -> Budget | None:
        """The budget, if one is configured."""
        return None if self.settings.budget is None else Budget(self.ledger, self.judge, self.settings.budget)

    async def ask(self, messages: Messages, sample: int = 0) -> Entry:
        """The ledger entry for these messages, from the ledger or from a new call.

        Raises SetAside if the call fails (in the `last_round` it returns an entry with outcome `failed`), and a
        UserError if no call can succeed.
        """
        key = call_key(self.judge, self.parameters, messages, sample)
        if key not in self.calls:
            self.calls[key] = asyncio.create_task(self._entry(key, messages, sample))
        try:
            return await self.calls[key]
        except SetAside:
            self.calls.pop(key, None)
            raise

    async def _entry(self, key: str, messages: Messages, sample: int) -> Entry:
        if key in self.ledger.finished:
            return self.ledger.finished[key]
        while not self.ledger.claim(key):
            if self.stopped.is_set():
                raise Stopped
            await asyncio.sleep(POLL_SECONDS)
        try:
            # Another process may have finished the call in the meantime.
            self.ledger.refresh()
            if key in self.ledger.finished:
                return self.ledger.finished[key]
            async with self._reserved(messages):
                return await self._call(key, messages, sample)
        finally:
            self.ledger.release(key)

    @contextlib.asynccontextmanager
    async def _reserved(self, messages: Messages) -> AsyncIterator[None]:
        if self.budget is None:
            yield
        else:
            most = price(self.settings, most_tokens(messages), self.settings.max_tokens)
            assert most is not None
            async with self.budget.reserving(most):
                yield

    async def _call(self, key: str, messages: Messages, sample: int) -> Entry:
        entry = new_entry(self.settings, key, messages, sample)
        begin = time.monotonic()
        try:
            reply = await self.endpoint.call(key, messages, self.parameters)
        except (Passing, Final) as error:
            line = await self.writer.add({**entry, "outcome": "failed", "error": str(error)})
            failure = self._failure(str(error), error.fix)
            if isinstance(error, Final):
                raise UserError(failure) from None
            if not self.last_round:
                raise SetAside(failure) from None
            return line
        seconds = round(time.monotonic() - begin, 3)
        entry |= {**vars(reply), "cost": cost(self.settings, reply.usage), "seconds": seconds}
        line = await self.writer.add(entry)
        self.asked += 1
        self.spent += line["cost"] or 0
        self.sizes.see(line)
        if self.budget is not None and line["outcome"] == "answered" and not line["usage"]:
            raise UserError(
                f"judge.budget: {self.settings.model} does not report token counts, so a budget cannot be enforced: "
                "remove it, and limit spending at the endpoint"
            )
        return line

    def used(self) -> dict[str, Any]:
        """Facts about the calls of this run, for run.json."""
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
            "prompts_cut_at": cut_at(entries),
        }

    def _failure(self, what: str, fix: str) -> str:
        proxy = proxy_of(self.base_url)
        through = f" through the proxy {proxy}" if proxy else ""
        return (
            f"judge {self.settings.model} at {self.base_url}{through}: {what}: {fix}, then rerun "
            f"({len(self.ledger.finished)} finished calls are kept in {self.ledger.path})"
        )

    async def close(self) -> None:
        """Stop: wait for calls on the wire, write what has arrived, close the connections."""
        self.stopped.set()
        pending = [task for task in self.calls.values() if not task.done()]
        if pending:
            await asyncio.wait(pending, timeout=GRACE_SECONDS)
        for task in pending:
            task.cancel()
        await asyncio.gather(*self.calls.values(), return_exceptions=True)
        await self.writer.close()
        if "endpoint" in vars(self):
            await self.endpoint.close()
        if vars(self).get("budget") is not None:
            self.budget.close()  # type: ignore[union-attr]


@contextlib.contextmanager
def judge_url(settings: Judge) -> Iterator[str]:
    """Yields the judge's base URL. The gold judge is started on a free loopback port and stopped at the end."""
    if settings.kind == "endpoint":
        assert settings.base_url is not None
        yield settings.base_url
        return
    from eval.judging.gold_judge import serving

    with serving(settings, port=0) as url:
        yield url
