"""A budget shared by all processes of a ledger. Before each call, the most it can cost is reserved."""

import asyncio
import contextlib
import fcntl
import hashlib
import math
from collections.abc import AsyncIterator, Iterator
from typing import Self

from eval.ledger.calls import Ledger
from salsa.runtime.errors import UserError

WIDTH = 32  # bytes of a process's slot in the file: the amount, as text
UNITS = 1_000_000_000  # per 1 of the prices' currency; integers add and subtract exactly
POLL_SECONDS = 0.1  # while waiting for calls in flight to free part of the budget


class Reservations:
    """Amounts that processes have reserved for calls in flight to a judge, in UNITS.

    Each process locks its own slot in the file. An amount in an unlocked slot belongs to a dead process and is ignored.
    """

    def __init__(self, ledger: Ledger, judge: str):
        self.ledger, self.amount = ledger, 0
        path = ledger.folder / f"reserved-{hashlib.sha256(judge.encode()).hexdigest()[:12]}"
        path.touch()
        self.file = path.open("r+b")
        with ledger.exclusive():
            self.slot = next(n for n in range(1_000_000) if self._lock(n))
            self.set(0)

    def _lock(self, slot: int) -> bool:
        try:
            fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot * WIDTH)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def set(self, amount: int) -> None:
        """Write this process's amount."""
        self.amount = amount
        self.file.seek(self.slot * WIDTH)
        self.file.write(str(amount).encode().ljust(WIDTH))
        self.file.flush()

    def others(self) -> int:
        """Total reserved by other living processes."""
        return sum(self._others())

    def _others(self) -> Iterator[int]:
        self.file.seek(0)
        data = self.file.read()
        for slot in range(len(data) // WIDTH):
            amount = int(data[slot * WIDTH : (slot + 1) * WIDTH])
            if slot == self.slot or not amount:
                continue
            if self._lock(slot):
                fcntl.lockf(self.file, fcntl.LOCK_UN, 1, slot * WIDTH)
            else:
                yield amount

    def close(self) -> None:
        self.file.close()


class Budget:
    """Lets a call start only if the budget holds even at the call's highest possible cost."""

    def __init__(self, ledger: Ledger, judge: str, most: float):
        self.ledger, self.judge, self.most = ledger, judge, most
        self.reserved = Reservations(ledger, judge)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _reserve(self, amount: int) -> bool:
        """Reserve an amount; False if it has to wait for calls in flight, whose actual cost is not known yet."""
        with self.ledger.exclusive():
            self.ledger.refresh()
            spent, reserved = self.ledger.spent[self.judge], self.reserved.amount + self.reserved.others()
            if spent + (reserved + amount) / UNITS <= self.most:
                self.reserved.set(self.reserved.amount + amount)
                return True
        if not reserved:
            raise UserError(
                f"judge.budget: {spent:.4f} of {self.most:g} are spent, and the next call may cost "
                f"{amount / UNITS:.4f}: raise the budget and rerun; finished calls are kept"
            )
        return False

    @contextlib.asynccontextmanager
    async def reserving(self, most: float) -> AsyncIterator[None]:
        """Reserve `most`, the highest cost of a call, while the block runs."""
        units = math.ceil(most * UNITS)
        while not self._reserve(units):
            await asyncio.sleep(POLL_SECONDS)
        try:
            yield
        finally:
            with self.ledger.exclusive():
                self.reserved.set(self.reserved.amount - units)

    def close(self) -> None:
        self.reserved.close()
