"""What judge and grade share: many calls at once, in any order, with results in the order asked."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from eval.judge_client import JudgeClient, endpoint
from eval.ledger import Ledger
from salsa.sections import Judge
from salsa.stage import log

T = TypeVar("T")
R = TypeVar("R")
LINES_IN_A_LOG = 5


async def _all(client: JudgeClient, items: Sequence[T], work: Callable[[JudgeClient, T], Awaitable[R]]) -> list[R]:
    every = max(1, len(items) // LINES_IN_A_LOG)
    bar = tqdm(total=len(items), desc="judge", leave=False, disable=not sys.stderr.isatty())
    done = 0

    async def one(item: T) -> R:
        nonlocal done
        result = await work(client, item)
        done += 1
        bar.update()
        if bar.disable and done % every == 0:
            log.info("judge: %d of %d", done, len(items))
        return result

    tasks = [asyncio.ensure_future(one(item)) for item in items]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        # After a failure the others are not waited for: the judge is gone, and each would try for minutes.
        pending = [*tasks, *client.calls.values()]
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        await client.close()
        bar.close()


def ask_all(
    settings: Judge, ledger_folder: Path, items: Sequence[T], work: Callable[[JudgeClient, T], Awaitable[R]]
) -> tuple[list[R], dict[str, Any]]:
    """`work` of each item, and what to record of the calls that it took."""

    async def everything(url: str, ledger: Ledger) -> tuple[list[R], dict[str, Any]]:
        client = JudgeClient(settings, url, ledger)
        return await _all(client, items, work), client.used()

    with endpoint(settings) as url, Ledger(ledger_folder) as ledger:
        return asyncio.run(everything(url, ledger))
