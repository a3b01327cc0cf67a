"""The display in a file, a pipe or a CI log: a line for each finished job."""

import time
from collections.abc import Iterable
from typing import TextIO

from eval.progress.run_state import Job, Planned, RunState, clock


class Lines:
    """Writes lines to a stream."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def plan(self, run: RunState, planned_seconds: Planned) -> None:
        """Lines do not say how much time is left, so they need no plan."""

    def start(self, run: RunState, job: Job) -> None:
        """Nothing is written when a job starts."""

    def finish(self, run: RunState, job: Job, now: float) -> None:
        total = str(run.total)
        done = f"{run.done:>{len(total)}}/{total}"
        at = time.strftime("%H:%M:%S", time.localtime(now))
        self.say([f"{at}  {done}  {clock(now - job.started):>7}  {job.stage:<9} {job.name}".rstrip()])

    def say(self, lines: Iterable[str], style: str = "") -> None:
        for line in lines:
            print(line, file=self.stream, flush=True)

    def stop(self) -> None:
        """Nothing is left to be done."""
