"""What judge and grade share: many calls at once, in any order, with results in the order asked."""

import asyncio
import contextlib
import gc
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from tqdm import tqdm

from eval.judge_client import Asks, JudgeClient, judge_url
from eval.ledger import Ledger
from salsa.errors import Interrupted
from salsa.judge_section import Judge
from salsa.stage import log

T = TypeVar("T")
R = TypeVar("R")
LINES_IN_A_LOG = 5
COLLECT_AFTER = 20_000  # new objects


@contextlib.contextmanager
def seldom_collected() -> Iterator[None]:
    """What there is stays, the ledger above all: else the garbage collector's searches take a tenth of the
    throughput."""
    usual = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()


async def _all(client: JudgeClient, items: Sequence[T], work: Callable[[Asks, T], Awaitable[R]]) -> list[R]:
    every = max(1, len(items) // LINES_IN_A_LOG)
    bar = tqdm(total=len(items), desc="judge", leave=False, disable=not sys.stderr.isatty())
    done = 0

    results: list[R | None] = [None] * len(items)
    left = iter(enumerate(items))

    async def worker() -> None:
        nonlocal done
        for number, item in left:
            results[number] = await work(client, item)
            done += 1
            bar.update()
            if client.spent:
                bar.set_postfix_str(f"cost {client.spent:.4f}", refresh=False)
            if bar.disable and done % every == 0:
                log.info("judge: %d of %d%s", done, len(items), f", cost {client.spent:.4f}" if client.spent else "")

    # Not a task an item: of tens of thousands at once most only wait, and the garbage collector searches them all.
    tasks = [asyncio.ensure_future(worker()) for _ in range(min(client.at_once, len(items)))]
    try:
        # After a failure the others are not waited for: the judge is gone, and each would try for minutes.
        if tasks:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task.done() and (error := task.exception()):
                raise error
        return cast(list[R], results)
    finally:
        await client.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        bar.close()


def ask_all(
    settings: Judge, ledger_folder: Path, items: Sequence[T], work: Callable[[Asks, T], Awaitable[R]]
) -> tuple[list[R], dict[str, Any]]:
    """`work` of each item, and what to record of the calls that it took. A SIGTERM ends it as soon as what is paid
    for has arrived."""

    async def everything(url: str, ledger: Ledger) -> tuple[list[R], dict[str, Any]]:
        client = JudgeClient(settings, url, ledger)
        working = asyncio.ensure_future(_all(client, items, work))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.cancel)
        try:
            results, used = await working, client.used()
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
