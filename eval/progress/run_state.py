"""The state of a run: its stages, their jobs, and the time that is left."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

PRIOR = 0.05
Planned = Callable[[], Mapping[str, float]]  # computes the planned seconds per job of each rule


@dataclass(frozen=True)
class Job:
    """A job that has started. `name` is its wildcards in words; times are seconds since the epoch.

    A job that `prints` writes to the terminal itself, as the one that shows the results at the end.
    """

    number: int
    stage: str
    name: str
    command: str
    logs: tuple[str, ...]
    started: float
    prints: bool = False

    @property
    def title(self) -> str:
        """The job in words."""
        return f"{self.stage} {self.name}".rstrip()


@dataclass
class Stage:
    """The jobs of one rule. `planned` is what the plan expects of a job, in seconds."""

    name: str
    total: int
    planned: float | None = None
    done: int = 0
    seconds: float = 0.0  # of all finished jobs
    started: float | None = None
    ended: float = 0.0
    running: dict[int, Job] = field(default_factory=dict)

    def elapsed(self, now: float) -> float:
        """Seconds from the start of the first job to now, or to the end of the last job if no job runs."""
        return 0.0 if self.started is None else (now if self.running else self.ended) - self.started


@dataclass
class RunState:
    """A run of the workflow. Stages are in the order of the workflow."""

    stages: dict[str, Stage] = field(default_factory=dict)
    failed: dict[int, Job] = field(default_factory=dict)
    started: float | None = None
    ended: float = 0.0

    @property
    def total(self) -> int:
        return sum(stage.total for stage in self.stages.values())

    @property
    def done(self) -> int:
        return sum(stage.done for stage in self.stages.values())

    def add_stages(self, jobs: Mapping[str, int]) -> None:
        """Set the number of jobs of each rule."""
        for name, total in jobs.items():
            self.stages.setdefault(name, Stage(name, 0)).total = total

    def add_plan(self, seconds: Mapping[str, float]) -> None:
        """Set the planned seconds per job of each rule; rules without jobs are skipped."""
        for name in seconds.keys() & self.stages.keys():
            self.stages[name].planned = seconds[name]

    def start(self, job: Job) -> None:
        """A job starts, or starts again after a failure."""
        stage = self.stages.setdefault(job.stage, Stage(job.stage, 0))
        stage.running[job.number] = job
        stage.total = max(stage.total, stage.done + len(stage.running))
        stage.started = job.started if stage.started is None else stage.started
        self.started = job.started if self.started is None else self.started
        self.failed.pop(job.number, None)

    def finish(self, number: int, now: float) -> Job | None:
        """A job succeeds. Returns it, or None if its start is unknown."""
        if (job := self._end(number, now)) is not None:
            stage = self.stages[job.stage]
            stage.done += 1
            stage.seconds += now - job.started
        return job

    def fail(self, number: int, now: float) -> Job | None:
        """A job fails. Returns it, or None if its start is unknown."""
        if (job := self._end(number, now)) is not None:
            self.failed[number] = job
        return job

    def _end(self, number: int, now: float) -> Job | None:
        self.ended = now
        for stage in self.stages.values():
            if (job := stage.running.pop(number, None)) is not None:
                stage.ended = now
                return job
        return None

    def seconds_left(self, now: float) -> float | None:
        """Estimate the time until all jobs are done, in seconds; None if nothing is known.

        A job is expected to take as long as its stage's finished jobs on average. Before one has finished, it is
        expected to take the planned time, times the ratio of measured to planned time over all finished jobs. A share
        PRIOR of the planned work counts as finished in the planned time, so that the first short jobs do not decide.
        As many jobs as so far, on average, will run at the same time.
        """
        stages = self.stages.values()
        compared = [stage for stage in stages if stage.planned]
        prior = PRIOR * sum(stage.total * (stage.planned or 0.0) for stage in compared)
        planned = prior + sum(stage.done * (stage.planned or 0.0) for stage in compared)
        scale = (prior + sum(stage.seconds for stage in compared)) / planned if planned else 1.0
        left = busy = 0.0
        for stage in stages:
            ages = [max(now - job.started, 0.0) for job in stage.running.values()]
            busy += stage.seconds + sum(ages)
            if stage.done:
                expected = stage.seconds / stage.done
            elif stage.planned is not None:
                expected = stage.planned * scale
            elif stage.total:
                return None
            else:
                continue
            left += expected * (stage.total - stage.done - len(ages)) + sum(max(expected - age, 0.0) for age in ages)
        if self.started is None or not busy or now <= self.started:
            return None
        return left * (now - self.started) / busy


def clock(seconds: float) -> str:
    """A duration as M:SS or H:MM:SS."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def roughly(seconds: float) -> str:
    """A duration in words, for an estimate."""
    if seconds < 90:
        return "about a minute" if seconds >= 30 else "less than a minute"
    if seconds < 90 * 60:
        return f"about {seconds / 60:.0f} minutes"
    return f"about {seconds / 3600:.0f} hours" if seconds < 48 * 3600 else f"about {seconds / 86400:.0f} days"
