"""What judge and grade share: many calls at once, in any order, with results in the order asked."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from tqdm import tqdm

from eval.judging.client import Asks, JudgeClient, Messages, SetAside, judge_url
from eval.ledger.calls import Entry, Ledger, seldom_collected
from salsa.config.judge import Judge
from salsa.runtime.errors import Interrupted, UserError
from salsa.runtime.log import log

T = TypeVar("T")
R = TypeVar("R")
LINES_IN_A_LOG = 5
LISTED = 10  # of the calls that fail, in a message


class Failures:
    """The items of a stage whose calls fail, and how many may."""

    def __init__(self, settings: Judge, items: Sequence[T], named: Callable[[T], str]):
        self.settings, self.count = settings, len(items)
        self.named = lambda number: named(items[number])
        most = settings.failed_share * self.count
        # One prompt that the endpoint cannot take ends no stage; an endpoint that takes none does.
        self.allowed = max(1, int(most)) if most and self.count > 1 else 0
        self.aside: dict[int, SetAside] = {}
        self.failed: dict[int, str] = {}

    def set_aside(self, number: int, error: SetAside) -> None:
        self.aside[number] = error
        if len(self.aside) > self.allowed:
            raise UserError(f"{error}. {self._list(self.aside)}")

    def check(self) -> None:
        """A warning about what has failed for good, or a UserError where that is too much."""
        if not self.failed:
            return
        why = next(iter(self.failed.values()))
        said = f"judge {self.settings.model}: {why}. {self._list(self.failed)}"
        if len(self.failed) > self.allowed:
            raise UserError(
                f"{said}; judge.failed_share allows {self.allowed}: mend the endpoint, or raise it, and run again: "
                "what has been answered is kept"
            )
        log.warning("%s; they count as failed, and are asked again when the stage runs again", said)

    def _list(self, numbers: Iterable[int]) -> str:
        names = [self.named(number) for number in sorted(numbers)]
        more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
        return f"{len(names)} of {self.count} calls fail: {'; '.join(names[:LISTED])}{more}"

    def record(self) -> list[dict[str, str]]:
        """For the run's record."""
        return [{"of": self.named(number), "why": why} for number, why in sorted(self.failed.items())]


class OneItem:
    """Asks for one item's work, and notes why its call failed."""

    def __init__(self, client: JudgeClient):
        self.client = client
        self.failed: str | None = None

    async def ask(self, messages: Messages, sample: int = 0) -> Entry:
        entry = await self.client.ask(messages, sample)
        if entry["outcome"] == "failed":
            self.failed = str(entry["error"])
        return entry


class Progress:
    """A bar on a terminal, or a line now and then in a log file."""

    def __init__(self, count: int, client: JudgeClient):
        self.count, self.client, self.done = count, client, 0
        self.bar = tqdm(total=count, desc="judge", leave=False, disable=not sys.stderr.isatty())

    def step(self) -> None:
        self.done += 1
        self.bar.update()
        cost = f"cost {self.client.spent:.4f}" if self.client.spent else ""
        if cost:
            self.bar.set_postfix_str(cost, refresh=False)
        if self.bar.disable and self.done % max(1, self.count // LINES_IN_A_LOG) == 0:
            log.info("judge: %d of %d%s", self.done, self.count, f", {cost}" if cost else "")


async def _all(
    client: JudgeClient, items: Sequence[T], work: Callable[[Asks, T], Awaitable[R]], failures: Failures
) -> list[R]:
    results: list[R | None] = [None] * len(items)
    progress = Progress(len(items), client)

    async def worker(left: Iterator[int]) -> None:
        for number in left:
            asks = OneItem(client)
            try:
                results[number] = await work(asks, items[number])
            except SetAside as error:
                failures.set_aside(number, error)
                continue
            if asks.failed is not None:
                failures.failed[number] = asks.failed
            progress.step()

    async def work_through(numbers: Sequence[int]) -> None:
        left = iter(numbers)
        # Not a task an item: of tens of thousands at once most only wait, and the garbage collector searches them all.
        tasks.extend(asyncio.ensure_future(worker(left)) for _ in range(min(client.at_once, len(numbers))))
        # After a failure the others are not waited for: the judge is gone, and each would try for minutes.
        if tasks:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task.done() and (error := task.exception()):
                raise error

    tasks: list[asyncio.Task[None]] = []
    try:
        await work_through(range(len(items)))
        if failures.aside:
            log.info("judge: %d failed calls are tried once more", len(failures.aside))
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
    work: Callable[[Asks, T], Awaitable[R]],
    named: Callable[[T], str] = str,
) -> tuple[list[R], dict[str, Any]]:
    """`work` of each item, and what to record of the calls that it took; `named` is what a message calls an item.

    Where the endpoint fails at a call, its item is tried again when all others are done. What fails then too has
    failed; a UserError where that is more than judge.failed_share. A SIGTERM ends it as soon as what is paid for has
    arrived.
    """
    failures = Failures(settings, items, named)

    async def everything(url: str, ledger: Ledger) -> tuple[list[R], dict[str, Any]]:
        client = JudgeClient(settings, url, ledger)
        working = asyncio.ensure_future(_all(client, items, work, failures))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.cancel)
        try:
            results, used = await working, {**client.used(), "failed": failures.record()}
            if used["prompts_cut_at"]:
                log.warning(
                    "judge %s counts %d tokens in prompts of unlike lengths, and more in none: its endpoint seems to "
                    "cut them: give it a longer context and a new ledger, or these verdicts are on other prompts",
                    *(settings.model, used["prompts_cut_at"]),
                )
            return results, used
        except asyncio.CancelledError:
            if not working.cancelled():
                raise
            raise Interrupted(
                f"judge: stopped as asked; {client.asked} new calls are kept in {ledger.path}: run again to go on"
            ) from None

    with judge_url(settings) as url, Ledger(ledger_folder) as ledger, seldom_collected():
        return asyncio.run(everything(url, ledger))
