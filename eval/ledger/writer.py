"""Write to the ledger without blocking the event loop. Entries that arrive during a write are written together next."""

import asyncio

from eval.ledger.calls import Entry, Ledger


class Writer:
    """`await add(entry)` returns the stored entry once it is on disk."""

    def __init__(self, ledger: Ledger):
        self.ledger = ledger
        self.waiting: list[tuple[Entry, asyncio.Future[Entry]]] = []
        self.task: asyncio.Task[None] | None = None

    async def add(self, entry: Entry) -> Entry:
        line: asyncio.Future[Entry] = asyncio.get_running_loop().create_future()
        self.waiting.append((entry, line))
        if self.task is None or self.task.done():
            self.task = asyncio.create_task(self._write())
        # Shielded: a cancelled call was paid for all the same, so its entry is written.
        return await asyncio.shield(line)

    async def _write(self) -> None:
        while self.waiting:
            batch, self.waiting = self.waiting, []
            try:
                lines = await asyncio.to_thread(self.ledger.add, *(entry for entry, _ in batch))
            except Exception as error:
                for _, line in batch:
                    line.set_exception(error)
            else:
                for (_, line), written in zip(batch, lines, strict=True):
                    line.set_result(written)

    async def close(self) -> None:
        """Wait until everything is written."""
        if self.task is not None:
            await self.task
