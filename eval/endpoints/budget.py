"""A budget that all processes of a ledger share: before a call, the most that it can cost is set aside."""

import asyncio
import contextlib
import fcntl
import hashlib
import math
from collections.abc import AsyncIterator, Iterator
from typing import Self

from eval.ledger.calls import Ledger
from salsa.runtime.errors import UserError

WIDTH = 32  # bytes of a process's place in the file: the amount, as text
UNITS = 1_000_000_000  # of 1 in the prices' currency: whole numbers leave no dust behind when they are taken back
LOOK_SECONDS = 0.1  # between two looks whether calls in flight have left something


class Reservations:
    """What each process has set aside for its calls to a judge in flight.

    A process holds the lock on its place in the file; an amount in a place that nobody holds is of a process that has
    died, and counts no more. Amounts are in UNITS.
    """

    def __init__(self, ledger: Ledger, judge: str):
        self.ledger, self.amount = ledger, 0
        path = ledger.folder / f"reserved-{hashlib.sha256(judge.encode()).hexdigest()[:12]}"
        path.touch()
        self.file = path.open("r+b")
        with ledger.alone():
            self.place = next(n for n in range(1_000_000) if self._hold(n))
            self.set(0)

    def _hold(self, place: int) -> bool:
        try:
            fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place * WIDTH)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def set(self, amount: int) -> None:
        self.amount = amount
        self.file.seek(self.place * WIDTH)
        self.file.write(str(amount).encode().ljust(WIDTH))
        self.file.flush()

    def others(self) -> int:
        """What other processes that live have set aside."""
        return sum(self._others())

    def _others(self) -> Iterator[int]:
        self.file.seek(0)
        data = self.file.read()
        for place in range(len(data) // WIDTH):
            amount = int(data[place * WIDTH : (place + 1) * WIDTH])
            if place == self.place or not amount:
                continue
            if self._hold(place):
                fcntl.lockf(self.file, fcntl.LOCK_UN, 1, place * WIDTH)
            else:
                yield amount

    def close(self) -> None:
        self.file.close()


class Budget:
    """`reserving(dearest)` lets a call start only if the budget is kept even if it costs that much."""

    def __init__(self, ledger: Ledger, judge: str, most: float):
        self.ledger, self.judge, self.most = ledger, judge, most
        self.reserved = Reservations(ledger, judge)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, dearest: int) -> bool:
        """Whether it was set aside; waiting helps only while calls are in flight, whose cost is not known yet."""
        with self.ledger.alone():
            self.ledger.refresh()
            spent, aside = self.ledger.spent[self.judge], self.reserved.amount + self.reserved.others()
            if spent + (aside + dearest) / UNITS <= self.most:
                self.reserved.set(self.reserved.amount + dearest)
                return True
        if not aside:
            raise UserError(
                f"judge.budget: {spent:.4f} of {self.most:g} are spent, and the next call may cost "
                f"{dearest / UNITS:.4f}: raise the budget and run again: what is paid for is kept"
            )
        return False

    @contextlib.asynccontextmanager
    async def reserving(self, dearest: float) -> AsyncIterator[None]:
        units = math.ceil(dearest * UNITS)
        while not self._take(units):
            await asyncio.sleep(LOOK_SECONDS)
        try:
            yield
        finally:
            with self.ledger.alone():
                self.reserved.set(self.reserved.amount - units)

    def close(self) -> None:
        self.reserved.close()
