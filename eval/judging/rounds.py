"""Run many judge calls concurrently (stages `judge`, `grade` and `calibrate`); results come back in input order.

A second round retries the calls that failed in the first.
"""

import asyncio
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from tqdm import tqdm

from eval.judging.client import JudgeClient, JudgeSession, Messages, SetAside, judge_url
from eval.ledger.calls import Entry, Ledger, rare_garbage_collection
from salsa.config.judge import Judge
from salsa.runtime.errors import Interrupted, UserError
from salsa.runtime.log import log

T = TypeVar("T")
R = TypeVar("R")
LINES_IN_A_LOG = 5
LISTED = 10  # failing calls named in a message


class Failures:
    """Items whose calls failed, and how many failures judge.failed_share allows."""

    def __init__(self, settings: Judge, items: Sequence[T], name: Callable[[T], str]):
        self.settings, self.count = settings, len(items)
        self.name = lambda number: name(items[number])
        most = settings.failed_share * self.count
        # A single bad prompt must not end a stage.
        self.allowed = max(1, int(most)) if most and self.count > 1 else 0
        self.aside: dict[int, SetAside] = {}
        self.failed: dict[int, str] = {}

    def set_aside(self, number: int, error: SetAside) -> None:
        """Keep an item for the second round; raises a UserError if there are too many."""
        self.aside[number] = error
        if len(self.aside) > self.allowed:
            raise UserError(f"{error}. {self._list(self.aside)}")

    def check(self) -> None:
        """Warn about calls that failed in both rounds; raises a UserError if there are too many."""
        if not self.failed:
            return
        why = next(iter(self.failed.values()))
        message = f"judge {self.settings.model}: {why}. {self._list(self.failed)}"
        if len(self.failed) > self.allowed:
            raise UserError(
                f"{message}; judge.failed_share allows {self.allowed}: fix the endpoint or raise judge.failed_share, "
                "and rerun; answered calls are kept"
            )
        log.warning("%s; they count as failed and are asked again when the stage is rerun", message)

    def _list(self, numbers: Iterable[int]) -> str:
        names = [self.name(number) for number in sorted(numbers)]
        more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
        return f"{len(names)} of {self.count} calls fail: {'; '.join(names[:LISTED])}{more}"

    def record(self) -> list[dict[str, str]]:
        """Failed items for run.json."""
        return [{"of": self.name(number), "why": why} for number, why in sorted(self.failed.items())]


class OneItem:
    """The judge session of one item; remembers why a call failed."""

    def __init__(self, client: JudgeClient):
        self.client = client
        self.failed: str | None = None

    async def ask(self, messages: Messages, sample: int = 0) -> Entry:
        entry = await self.client.ask(messages, sample)
        if entry["outcome"] == "failed":
            self.failed = str(entry["error"])
        return entry


class Progress:
    """A progress bar on a terminal, or five log lines otherwise."""

    def __init__(self, count: int, client: JudgeClient):
        self.count, self.client, self.done = count, client, 0
        self.bar = tqdm(total=count, desc="judge", leave=False, disable=not sys.stderr.isatty())

    def step(self) -> None:
        """Count one finished item."""
        self.done += 1
        self.bar.update()
        cost = f"cost {self.client.spent:.4f}" if self.client.spent else ""
        if cost:
            self.bar.set_postfix_str(cost, refresh=False)
        if self.bar.disable and self.done % max(1, self.count // LINES_IN_A_LOG) == 0:
            log.info("judge: %d of %d%s", self.done, self.count, f", {cost}" if cost else "")


async def _all(
    client: JudgeClient, items: Sequence[T], work: Callable[[JudgeSession, T], Awaitable[R]], failures: Failures
) -> list[R]:
    results: list[R | None] = [None] * len(items)
    progress = Progress(len(items), client)

    async def worker(left: Iterator[int]) -> None:
        for number in left:
            session = OneItem(client)
            try:
                results[number] = await work(session, items[number])
            except SetAside as error:
                failures.set_aside(number, error)
                continue
            if session.failed is not None:
                failures.failed[number] = session.failed
            progress.step()

    async def work_through(numbers: Sequence[int]) -> None:
        left = iter(numbers)
        # A fixed number of workers, because tens of thousands of waiting tasks slow garbage collection down.
        tasks.extend(asyncio.ensure_future(worker(left)) for _ in range(min(client.at_once, len(numbers))))
        # Stop at the first exception: the judge is unreachable, and every other call would retry for minutes.
        if tasks:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task.done() and (error := task.exception()):
                raise error

    tasks: list[asyncio.Task[None]] = []
    try:
        await work_through(range(len(items)))
        if failures.aside:
            log.info("judge: retrying %d failed calls", len(failures.aside))
            client.last_round = True
            await work_through(sorted(failures.aside))
        failures.check()
        return cast(list[R], results)
    finally:
        await client.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        progress.bar.close()


def ask_all(
    settings: Judge,
    ledger_folder: Path,
    items: Sequence[T],
    work: Callable[[JudgeSession, T], Awaitable[R]],
    name: Callable[[T], str] = str,
) -> tuple[list[R], dict[str, Any]]:
    """Run `work(session, item)` for each item; returns the results and facts about the calls for run.json.

    Items whose call fails are retried after all others. Raises a UserError if more than judge.failed_share still fail.
    SIGTERM ends the stage as soon as the calls on the wire, which are paid, have arrived. `name` names an item in
    messages.
    """
    failures = Failures(settings, items, name)

    async def everything(url: str, ledger: Ledger) -> tuple[list[R], dict[str, Any]]:
        client = JudgeClient(settings, url, ledger)
        working = asyncio.ensure_future(_all(client, items, work, failures))
        if threading.current_thread() is threading.main_thread():  # others cannot handle signals
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.cancel)
        try:
            results, used = await working, {**client.used(), "failed": failures.record()}
            if used["prompts_cut_at"]:
                log.warning(
                    "judge %s counts %d tokens in prompts of different lengths, and never more: the endpoint seems to "
                    "truncate prompts, so these verdicts are on other prompts: give it a longer context and a new "
                    "ledger",
                    *(settings.model, used["prompts_cut_at"]),
                )
            return results, used
        except asyncio.CancelledError:
            if not working.cancelled():
                raise
            raise Interrupted(
                f"judge: stopped on request; {client.asked} new calls are kept in {ledger.path}: rerun to resume"
            ) from None

    with judge_url(settings) as url, Ledger(ledger_folder) as ledger, rare_garbage_collection():
        return asyncio.run(everything(url, ledger))
