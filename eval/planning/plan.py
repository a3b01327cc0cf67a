"""Command `plan`: estimate a grid's jobs, device hours, memory, disk space and judging costs before anything runs.

The plan counts all jobs of the grid, also those whose outputs exist, on one kind of device. It is arithmetic on shapes,
rows and tokens. Measured runs were within a factor of 1.5 of it (docs/plan.md); expect no better.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from eval.claims.settle import POWER
from eval.costs.assumed import assumed, device_notes
from eval.costs.sizes import Sizes
from eval.costs.work import Calls
from eval.endpoints.costs import price
from eval.planning.fitting import checkpointing_lines, misfit_lines
from eval.planning.formats import align_columns, duration, size
from eval.planning.frozen_models import frozen_lines
from eval.planning.grid_plan import Plan, sum_calls
from eval.planning.judge_calls import judge_prices
from eval.planning.power import FINISHED, claims_file, finished_claims, powers, with_another_replicate
from eval.planning.schedule import Run, critical_path
from salsa.config.config import Config, all_replicates, load_config
from salsa.config.judge import Judge
from salsa.runtime.outputs import output_file
from salsa.runtime.texts import counted

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


def table_row(model: str, stage: str, runs: Sequence[Run], done: float, judge: Judge) -> tuple[str, ...]:
    """A row of the table, with the columns of HEAD. `done` is when the stage's last job ends, in seconds."""
    calls = sum_calls(runs)
    cost = price(judge, calls.prompt_tokens, calls.reply_tokens) if calls.number else None
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


def judge_lines(plan: Plan) -> list[str]:
    """The judge calls and their cost."""
    calls, judge = plan.calls(), plan.config.judge
    text = (
        f"{calls.number:,.0f} calls of {judge.model}: {calls.prompt_tokens:,.0f} prompt tokens, "
        f"{calls.reply_tokens:,.0f} reply tokens"
    )
    if judge.kind == "gold":
        return [f"judge      {text}; runs on this machine, without cost"]
    cost = price(judge, calls.prompt_tokens, calls.reply_tokens)
    text_of_cost = "unknown: set judge.input_price and judge.output_price" if cost is None else f"{cost:,.2f}"
    return [f"judge      {text}", f"           cost {text_of_cost}", *price_lines(calls)]


def price_lines(calls: Calls) -> list[str]:
    """What the calls cost by known judges."""
    prices = judge_prices()
    head = f"by the prices of {prices.as_of}, in US dollars ({prices.batch:.0%} of them through a batch API):"
    lines = [f"           {head}"]
    for name, cost in sorted(prices.costs(calls).items(), key=lambda entry: -entry[1]):
        ends = prices.judges[name].ends
        lines.append(f"           {cost:8,.2f}  {name}" + (f" (served until {ends})" if ends else ""))
    return lines


def power_lines(plan: Plan, like: Path | None, target: float | None) -> list[str]:
    """What the grid's replicates find, and how many find the target, with what they take; none without claims.

    `like` has the results of the finished grid that the variances come from; default: the project's mini grid.
    """
    folder = FINISHED if like is None else like
    if like is None and not claims_file(folder).exists():
        return ["power      unknown: the mini grid has no tables here; name a finished grid by --like"]
    found = powers(Sizes(plan.config), finished_claims(folder), target)
    if not found:
        return []
    count = len(all_replicates(plan.config))
    more = Plan.of(with_another_replicate(plan.config), plan.device, plan.count)
    now, then = ((each.device_hours(), each.calls().number) for each in (plan, more))

    def cost(replicates: int | None) -> tuple[str, str, str]:
        if replicates is None:
            return "-", "-", "-"
        hours, calls = (a + (replicates - count) * (b - a) for a, b in zip(now, then, strict=True))
        return f"{replicates}", f"{hours:,.1f}", f"{calls:,.0f}"

    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    wanted = "the difference seen there" if target is None else f"a difference of {target:g}"
    head = ("claim", "figure", "found", "to find", "replicates", "device hours", "calls")
    rows = [
        (one.claim, one.figure, difference(one.smallest), difference(one.target), *cost(one.replicates))
        for one in found
    ]
    return [
        "",
        f"power      found: the smallest difference from a claim's threshold that {count} replicates find with a",
        f"           probability of {POWER:.0%}, if runs and questions vary as in {shown};",
        f"           then what it takes to find {wanted}",
        "",
        *align_columns([head, *rows]),
    ]


def difference(value: float) -> str:
    """A difference from a claim's threshold; "-" if it is unknown."""
    return "-" if math.isnan(value) else f"{value:.2g}"


def format_plan(plan: Plan, hourly: float | None, power: Sequence[str] = ()) -> list[str]:
    """The lines to print. `hourly` is the price of a device hour; `power` are lines after the sums."""
    device, count = plan.device, plan.count
    memory = f", {device.memory:g} GB" if device.memory else ""
    ended = plan.ends()
    table = [
        table_row(model, stage, runs, max(ended[run.job.name] for run in runs), plan.config.judge)
        for (model, stage), runs in plan.by_stage().items()
    ]
    lines = [f"grid {plan.config.grid} on {count} x {device.title}{memory}", "", *align_columns([HEAD, *table]), ""]
    hours = plan.device_hours()
    replicates = len(all_replicates(plan.config))
    lines.append(f"jobs       {len(plan.runs):,} for {counted(replicates, 'replicate')}")
    paid = f", {hours * hourly:,.0f} at {hourly:g} per hour" if hourly is not None else ""
    lines.append(f"hours      {hours:,.2f} device hours{paid}")
    lines.append(f"wall time  {duration(max(ended.values()))} on {count}, if each job starts as soon as it can")
    scratch = f", and up to {size(plan.scratch())} for unfinished PPO runs" if plan.scratch() else ""
    lines.append(f"disk       {size(plan.disk())}{scratch}")
    lines += judge_lines(plan)
    lines += frozen_lines(plan.config, device, count)
    lines += checkpointing_lines(plan)
    lines += misfit_lines(plan)
    lines += power
    notes = {**plan.notes, **device_notes(device)}
    lines += ["", "assumed, with the source of each:", *(f"- {note} [{source}]" for note, source in notes.items())]
    return lines


def cuts(config: Config) -> Iterator[tuple[str, Config]]:
    """Smaller grids, each by one part smaller than the one before, and what was cut.

    First replicates, down to two, because intervals over runs need two. Then models, the largest first, because each is
    an answer of its own. Methods and benchmarks stay: without them a claim has no figure.
    """
    data = config.model_dump(exclude_unset=True, mode="json")
    for name in reversed(list(data.get("replicates", {}))[2:]):
        data["replicates"].pop(name)
        yield f"replicate {name}", Config.model_validate(data)
    by_size = sorted(data["models"], key=Sizes(config).parameters, reverse=True)
    for name in by_size[:-1]:
        data["models"].pop(name)
        yield f"model {name}", Config.model_validate(data)


def cut_lines(plan: Plan, hours: float) -> list[str]:
    """What to leave out first if only so many hours are at hand, until the rest fits."""
    smaller, wall = plan, plan.wall_seconds()
    rows = [("nothing", duration(wall), f"{plan.device_hours():,.0f}")]
    for what, config in cuts(plan.config):
        if wall <= 3600 * hours:
            break
        smaller = Plan.of(config, plan.device, plan.count)
        wall = smaller.wall_seconds()
        rows.append((what, duration(wall), f"{smaller.device_hours():,.0f}"))
    short = (
        [] if wall <= 3600 * hours else [f"           what is left still takes more than {hours:g} h: use more devices"]
    )
    head = ("left out, besides those above", "wall time", "device hours")
    table = [f"           {line}" for line in align_columns([head, *rows], left=1)]
    return [f"within     what to leave out first if {hours:g} h are at hand", *table, *short]


def run(arguments: argparse.Namespace) -> None:
    config = load_config(*arguments.config)
    plan = Plan.of(config, assumed().devices[arguments.device], arguments.count)
    further = power_lines(plan, arguments.like, arguments.power)
    if arguments.within is not None:
        further = [*cut_lines(plan, arguments.within), *further]
    print("\n".join(format_plan(plan, arguments.hourly, further)))
    if arguments.gantt is not None:
        write_gantt(plan, arguments.gantt)


def write_gantt(plan: Plan, file: Path) -> None:
    """Draw the schedule as SVG."""
    # Imported only here: matplotlib takes a second.
    from eval.figures.gantt import Bar, save_gantt

    when = plan.spans()
    path = critical_path(plan.runs, when)
    bars = [
        Bar(model, stage, span.begin, span.end, span.devices, run.job.name in path)
        for (model, stage), runs in plan.by_stage().items()
        for run in runs
        for span in [when[run.job.name]]
    ]
    title = f"{plan.config.grid} on {plan.count} x {plan.device.title}: {duration(plan.wall_seconds())}"
    with output_file(file) as temporary:
        save_gantt(bars, plan.count, title, temporary)
