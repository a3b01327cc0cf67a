"""The display on a terminal: a bar for each stage, redrawn in place."""

import time
from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from eval.progress.run_state import Job, Planned, RunState, Stage, clock, roughly
from salsa.runtime.errors import UserError

REDRAWN = 4  # per second
NARROW = 60  # columns: below, running jobs are not named
TOTAL = "total"


def shown_stages(stages: list[Stage], rows: int) -> list[Stage]:
    """The stages that fit into so many rows: those that run, then those to come, then the last finished ones."""
    waiting = [stage for stage in stages if not stage.running and stage.done < stage.total]
    finished = [stage for stage in stages if not stage.running and stage.done >= stage.total]
    kept = [*(stage for stage in stages if stage.running), *waiting, *reversed(finished)][: max(rows, 1)]
    names = {stage.name for stage in kept}
    return [stage for stage in stages if stage.name in names]


class Bars:
    """Draws the stages on a console until `stop`, or until a job writes to the terminal itself."""

    def __init__(self, console: Console):
        self.console = console
        self.live: Live | None = None
        self.run = RunState()

    def plan(self, run: RunState, planned_seconds: Planned) -> None:
        """Compute the plan, from which the first estimates of the time left come."""
        try:
            run.add_plan(planned_seconds())
        except UserError as error:
            self.say([f"The plan is missing, so the time left is unknown at first: {error}"], "yellow")

    def start(self, run: RunState, job: Job) -> None:
        self.run = run
        if job.prints:
            self.stop()
        elif self.live is None:
            self.live = Live(get_renderable=self.drawing, console=self.console, refresh_per_second=REDRAWN)
            self.live.start()

    def finish(self, run: RunState, job: Job, now: float) -> None:
        """The next drawing shows it."""

    def say(self, lines: Iterable[str], style: str = "") -> None:
        for line in lines:
            self.console.print(Text(line, style=style), soft_wrap=True)

    def stop(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None

    def drawing(self) -> RenderableType:
        return draw(self.run, time.time(), self.console.width, self.console.height)


def draw(run: RunState, now: float, width: int, height: int) -> Table:
    """The stages and the whole run as a table with bars, for a terminal of so many columns and rows."""
    wide = width >= NARROW
    table = Table.grid(padding=(0, 1), expand=wide)
    table.add_column(no_wrap=True)
    table.add_column(width=min(30, max(width // 4, 5)))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    if wide:
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")

    def add(name: str, done: int, total: int, seconds: str, note: str, style: str) -> None:
        bar = ProgressBar(total=max(total, 1), completed=done)
        cells: list[RenderableType] = [Text(name, style), bar, Text(f"{done}/{total}", style), Text(seconds, style)]
        table.add_row(*cells, *([Text(note, style)] if wide else []))

    # The stage that prints the results comes when the drawing ends.
    stages = [stage for stage in run.stages.values() if not any(job.prints for job in stage.running.values())]
    for stage in shown_stages(stages, height - 3):
        style = "bold" if stage.running else "dim"
        seconds = "" if stage.started is None else clock(stage.elapsed(now))
        names = ", ".join(job.name for job in stage.running.values() if job.name)
        add(stage.name, stage.done, stage.total, seconds, names, style)
    elapsed = 0.0 if run.started is None else now - run.started
    left = run.seconds_left(now)
    done, total = sum(stage.done for stage in stages), sum(stage.total for stage in stages)
    note = "" if left is None or done == total else f"{roughly(left)} left"
    add(TOTAL, done, total, clock(elapsed), note, "bold")
    return table
