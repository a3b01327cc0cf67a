"""Command `plan`: what a grid will take, before anything runs: jobs, hours, memory, disk, and what judging costs.

Everything is counted for a grid of which nothing is there yet, on one kind of device. It is arithmetic on shapes, rows
and tokens (eval/planning): within a factor of two of what was measured (docs/plan.md), and no better.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.endpoints.costs import price
from eval.planning.assumed import Device, assumed
from eval.planning.jobs import Jobs
from eval.planning.judge_calls import JudgeCosts
from eval.planning.schedule import Run, ends, run_of
from eval.planning.sizes import Sizes
from eval.planning.work import GIGABYTE, Calls
from salsa.config.config import Config, load_config
from salsa.config.judge import Judge
from salsa.runtime.errors import UserError

SHARED = "all models"
HEAD = (
    "model",
    "stage",
    "jobs",
    "devices",
    "longest job",
    "device hours",
    "done after",
    "memory",
    "disk",
    "calls",
    "cost",
)


@dataclass(frozen=True)
class Plan:
    """A grid's jobs on a device; `runs` by name, needed ones first."""

    config: Config
    device: Device
    count: int
    runs: dict[str, Run]
    notes: list[str]

    @staticmethod
    def of(config: Config, device: Device, count: int) -> "Plan":
        sizes = Sizes(config)
        jobs = Jobs(sizes, JudgeCosts(sizes)).every
        runs = {name: run_of(job, device) for name, job in jobs.items()}
        return Plan(config, device, count, runs, list(sizes.notes))

    def by_stage(self) -> dict[tuple[str, str], list[Run]]:
        """Runs by model and rule, in the order in which they come."""
        found = defaultdict(list)
        for run in self.runs.values():
            found[run.job.model or SHARED, run.job.rule].append(run)
        models = [*self.config.models, SHARED]
        return dict(sorted(found.items(), key=lambda item: models.index(item[0][0])))

    def device_hours(self) -> float:
        return sum(run.device_seconds for run in self.runs.values()) / 3600

    def ends(self) -> dict[str, float]:
        """Seconds from the start to the end of each job."""
        return ends(self.runs, self.count)

    def wall_seconds(self) -> float:
        return max(self.ends().values())

    def calls(self) -> Calls:
        return calls_of(self.runs.values())

    def disk(self) -> float:
        """Bytes that stay."""
        return sum(run.job.cost.disk for run in self.runs.values())

    def scratch(self) -> float:
        """Bytes that unfinished jobs take at most: those that take most, on all devices at once."""
        free, found = self.count, 0.0
        for run in sorted(self.runs.values(), key=lambda run: -run.job.cost.scratch):
            wanted = min(run.count, self.count)
            if wanted and wanted <= free:
                free, found = free - wanted, found + run.job.cost.scratch
        return found


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    for unit, length, least in (("d", 86400, 2), ("h", 3600, 1), ("min", 60, 1)):
        if seconds >= least * length:
            value = seconds / length
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{seconds:.0f} s"


def size(count: float) -> str:
    """Bytes, in decimal units."""
    for unit, length in (("TB", 1e12), ("GB", GIGABYTE), ("MB", 1e6)):
        if count >= length:
            return f"{count / length:.3g} {unit}"
    return "0" if not count else "< 1 MB"


def calls_of(runs: Iterable[Run]) -> Calls:
    """Of a judge, all together."""
    each = [run.job.cost.calls for run in runs]
    return Calls(sum(c.number for c in each), sum(c.asked for c in each), sum(c.answered for c in each))


def row(model: str, stage: str, runs: Sequence[Run], done: float, judge: Judge) -> tuple[str, ...]:
    """A line of the table."""
    calls = calls_of(runs)
    cost = price(judge, calls.asked, calls.answered) if calls.number else None
    longest = max(runs, key=lambda run: run.seconds)
    memory = max(run.memory for run in runs)
    return (
        model,
        stage,
        f"{len(runs):,}",
        "-" if not longest.count else f"{longest.count}" + ("" if all(run.fits for run in runs) else " too small"),
        duration(longest.seconds),
        f"{sum(run.device_seconds for run in runs) / 3600:,.2f}" if longest.count else "-",
        duration(done),
        size(memory) if memory else "-",
        size(sum(run.job.cost.disk for run in runs)) if any(run.job.cost.disk for run in runs) else "-",
        f"{calls.number:,.0f}" if calls.number else "-",
        f"{cost:,.2f}" if cost is not None else "-",
    )


def aligned(rows: Iterable[tuple[str, ...]], left: int = 2) -> list[str]:
    """Rows as text; the first columns, so many, at the left, the others at the right."""
    found = list(rows)
    widths = [max(map(len, column)) for column in zip(*found, strict=True)]

    def padded(text: str, column: int) -> str:
        return text.ljust(widths[column]) if column < left else text.rjust(widths[column])

    return ["  ".join(padded(text, column) for column, text in enumerate(row)).rstrip() for row in found]


def judging(plan: Plan) -> list[str]:
    """What judging takes."""
    calls, judge = plan.calls(), plan.config.judge
    text = (
        f"{calls.number:,.0f} calls of {judge.model}, {calls.asked:,.0f} tokens asked, {calls.answered:,.0f} answered"
    )
    if judge.kind == "gold":
        return [f"judge      {text}; it runs here and costs nothing"]
    cost = price(judge, calls.asked, calls.answered)
    if cost is None:
        return [f"judge      {text}", "           its cost is not known: set judge.input_price and judge.output_price"]
    return [f"judge      {text}", f"           cost {cost:,.2f} in the prices' currency"]


def lines(plan: Plan, hourly: float | None) -> list[str]:
    """The plan as text."""
    device, count = plan.device, plan.count
    memory = f", {device.memory:g} GB" if device.memory else ""
    ended = plan.ends()
    table = [
        row(model, stage, runs, max(ended[run.job.name] for run in runs), plan.config.judge)
        for (model, stage), runs in plan.by_stage().items()
    ]
    found = [f"grid {plan.config.grid} on {count} x {device.title}{memory}", "", *aligned([HEAD, *table]), ""]
    hours = plan.device_hours()
    found.append(f"jobs       {len(plan.runs):,}")
    paid = f", {hours * hourly:,.0f} at {hourly:g} an hour" if hourly is not None else ""
    found.append(f"hours      {hours:,.2f} of a device{paid}")
    found.append(f"wall time  {duration(max(ended.values()))} with {count}, if each job starts as soon as it can")
    scratch = f", and up to {size(plan.scratch())} of unfinished PPO runs" if plan.scratch() else ""
    found.append(f"disk       {size(plan.disk())}{scratch}")
    found += judging(plan)
    found += too_small(plan)
    found += ["", "assumed:", *(f"- {note}" for note in plan.notes), *(f"- {note}" for note in of_device(device))]
    return found


def too_small(plan: Plan) -> list[str]:
    """Stages that the devices do not do for, and what to do about it, a line each."""
    wrong = [(model, rule, misfit(runs, plan.count)) for (model, rule), runs in plan.by_stage().items()]
    return [f"too small  {rule} of {model}: {why}" for model, rule, why in wrong if why]


def largest(runs: Iterable[Run]) -> Run:
    """The run that needs most devices, and of those most memory."""
    return max(runs, key=lambda run: (run.count, run.memory))


def misfit(runs: Iterable[Run], count: int) -> str | None:
    """What is wrong where so many devices do not do for a stage, and what to do about it."""
    most = largest(runs)
    if not most.fits:
        return (
            f"{size(most.memory)} on {'one device' if most.count == 1 else f'each of {most.count} devices'}: lower its "
            "micro_batch_size or batch_size, shorten its sequences, or take a larger device"
        )
    if most.count > count:
        return f"{most.count} devices for its memory, of {count}: take more"
    return None


def of_device(device: Device) -> list[str]:
    """What is assumed of a device, as text."""
    peak = ", ".join(f"{rate / 1e12:g} TFLOP/s in {dtype}" for dtype, rate in sorted(device.peak.items()))
    return [
        f"{device.title}: {peak}, {device.bytes / 1e12:g} TB/s, of which passes and decoding reach "
        f"{device.efficiency:.0%}; a layer's pass takes {device.layer_seconds['transformers'] * 1e3:g} ms at least "
        f"(vLLM's {device.layer_seconds['vllm'] * 1e3:g} ms); several devices on one model give "
        f"{assumed().together:.0%} each",
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, nargs="+", required=True, help="the grid; further files are merged into it"
    )
    parser.add_argument("--device", choices=sorted(assumed().devices), default="h100", help="default h100; cpu: a core")
    parser.add_argument("--count", type=int, default=8, help="how many devices there are (default 8)")
    parser.add_argument("--hourly", type=float, help="price of a device's hour, in any currency")


def run(arguments: argparse.Namespace) -> None:
    if arguments.count < 1:
        raise UserError(f"--count {arguments.count}: one device or more")
    config = load_config(*arguments.config)
    plan = Plan.of(config, assumed().devices[arguments.device], arguments.count)
    print("\n".join(lines(plan, arguments.hourly)))
