"""Rate limits (requests and tokens per minute), evenly spaced and shared by all processes of a ledger."""

import asyncio
import fcntl
import json
import time
from pathlib import Path

MINUTE = 60.0


class Pace:
    """Assigns each call a start time that respects all limits. `rates` are per minute, by name.

    The file holds for each judge and limit the time of the next free slot, in seconds since 1970, so the clocks of
    machines that share it should agree to about a second. Slots are taken under a lock.
    """

    def __init__(self, path: Path, judge: str, rates: dict[str, float]):
        self.path, self.judge, self.rates = path, judge, rates

    def take(self, amounts: dict[str, float], now: float) -> float:
        """Take a slot of each limit, sized by `amounts`; returns the time at which the call may start."""
        with self.path.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            text = file.read()
            try:
                free = json.loads(text) if text else {}
            except ValueError:
                # A process was killed while writing: start afresh, as after a pause.
                free = {}
            own = free.setdefault(self.judge, {})
            start = now
            for name, amount in amounts.items():
                place = max(now, own.get(name, now))
                start = max(start, place)
                own[name] = place + amount * MINUTE / self.rates[name]
            file.truncate(0)
            file.write(json.dumps(free))
        return start

    async def wait(self, tokens: float) -> None:
        """Wait until a request of about this many tokens may start."""
        if self.rates:
            amounts = {"requests": 1.0, "tokens": tokens}
            now = time.time()
            start = self.take({name: amounts[name] for name in self.rates}, now)
            await asyncio.sleep(start - now)

    def settle(self, tokens: float) -> None:
        """Correct a call's tokens: more than expected, or fewer (negative)."""
        if "tokens" in self.rates:
            self.take({"tokens": tokens}, time.time())
