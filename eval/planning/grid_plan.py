"""A grid's jobs, placed on devices."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from eval.costs.assumed import Device
from eval.costs.sizes import Sizes
from eval.costs.work import Calls
from eval.planning.jobs import Jobs
from eval.planning.judge_calls import JudgeCosts
from eval.planning.schedule import Run, Span, ends, place, spans
from salsa.config.config import Config

SHARED = "all models"


def sum_calls(runs: Iterable[Run]) -> Calls:
    """The judge calls of all runs."""
    calls = [run.job.cost.calls for run in runs]
    return Calls(sum(c.number for c in calls), sum(c.prompt_tokens for c in calls), sum(c.reply_tokens for c in calls))


@dataclass(frozen=True)
class Plan:
    """A grid's jobs on `count` devices. `runs` maps job names to runs; each comes after the runs that it needs."""

    config: Config
    device: Device
    count: int
    runs: dict[str, Run]
    notes: dict[str, str]

    @staticmethod
    def of(config: Config, device: Device, count: int) -> "Plan":
        sizes = Sizes(config)
        jobs = Jobs(sizes, JudgeCosts(sizes)).by_name
        runs = {name: place(job, device) for name, job in jobs.items()}
        return Plan(config, device, count, runs, sizes.notes)

    def by_stage(self) -> dict[tuple[str, str], list[Run]]:
        """Runs by (model, rule): models in the config's order, rules in the order of the workflow."""
        stages = defaultdict(list)
        for run in self.runs.values():
            stages[run.job.model or SHARED, run.job.rule].append(run)
        models = [*self.config.models, SHARED]
        return dict(sorted(stages.items(), key=lambda item: models.index(item[0][0])))

    def device_hours(self) -> float:
        return sum(run.device_seconds for run in self.runs.values()) / 3600

    def ends(self) -> dict[str, float]:
        """When each job ends, in seconds from the start."""
        return ends(self.runs, self.count)

    def spans(self) -> dict[str, Span]:
        """When each job runs."""
        return spans(self.runs, self.count)

    def wall_seconds(self) -> float:
        return max(self.ends().values())

    def calls(self) -> Calls:
        return sum_calls(self.runs.values())

    def disk(self) -> float:
        """Bytes of the grid's outputs."""
        return sum(run.job.cost.disk for run in self.runs.values())

    def scratch(self) -> float:
        """The most bytes that unfinished jobs take on disk: the jobs with most scratch, on all devices at once."""
        free, total = self.count, 0.0
        for run in sorted(self.runs.values(), key=lambda run: -run.job.cost.scratch):
            devices = min(run.count, self.count)
            if devices and devices <= free:
                free, total = free - devices, total + run.job.cost.scratch
        return total
