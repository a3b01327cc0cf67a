"""Requests and tokens a minute, evenly spaced, shared by all processes that use a ledger."""

import asyncio
import fcntl
import json
import time
from pathlib import Path

MINUTE = 60.0


class Pace:
    """Gives each call its time to start: at the next free place of each limit. `rates` are per minute, by name.

    The file holds, for each judge and limit, when its next place is free (seconds since 1970: machines that share it
    should agree on the time to within a second or so). A lock makes taking a place one step.
    """

    def __init__(self, path: Path, judge: str, rates: dict[str, float]):
        self.path, self.judge, self.rates = path, judge, rates

    def take(self, amounts: dict[str, float], now: float) -> float:
        """Moves each limit's next place on by what `amounts` take of it; the time at which all places are reached."""
        with self.path.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            text = file.read()
            try:
                free = json.loads(text) if text else {}
            except ValueError:
                # A process was killed as it wrote: the limits begin anew, as after a pause.
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
        """Until a request of about so many tokens may start."""
        if self.rates:
            amounts = {"requests": 1.0, "tokens": tokens}
            now = time.time()
            start = self.take({name: amounts[name] for name in self.rates}, now)
            await asyncio.sleep(start - now)

    def settle(self, tokens: float) -> None:
        """Takes so many tokens more than was thought, or fewer."""
        if "tokens" in self.rates:
            self.take({"tokens": tokens}, time.time())
