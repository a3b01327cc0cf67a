"""Tables of the frontier: its runs, and methods compared at equal KL."""

import itertools
from collections.abc import Iterable
from typing import Any

import pandas as pd

from eval.claims.frontier import differences_at_equal_kl, is_measured
from eval.claims.observations import without_question
from eval.grid.layout import ALL_MODELS, Grid
from eval.grid.results import GridResults
from eval.statistics.intervals import Interval, mean
from eval.tables.table import Column, Table, copied, figure, has, interval, only_if
from salsa.config.sections import Comparison

Row = dict[str, Any]
MEASURES = ("reward", "reward_trained_on", "reward_held_out", "gold", "win_rate")
COMPARED = tuple(name for name in MEASURES if name != "reward_trained_on")  # which is another reward for each side
NAMES = ("1/4", "1/2", "3/4")


def over_runs(values: "pd.Series[Any]", rows: pd.DataFrame, confidence: float) -> Interval:
    """Mean over replicates, nested in models."""
    return mean(values, without_question(rows.drop(columns="benchmark", errors="ignore")), confidence)


def on_the_frontier(grid: Grid) -> dict[str, Comparison]:
    """Comparisons whose methods are both on the frontier."""
    measured = {run.method for run in grid.frontier}
    return {name: sides for name, sides in grid.comparisons.items() if {sides.a, sides.b} <= measured}


def equal_kl_rows(results: GridResults) -> pd.DataFrame:
    """Differences of both methods of each comparison: per model and over all, at parts of the range and on average."""
    grid, rows = results.grid, []
    for comparison, sides in on_the_frontier(grid).items():
        for measure in COMPARED:
            found = differences_at_equal_kl(results.frontier, grid, sides, measure)
            for model in (*grid.models, ALL_MODELS) if len(found) else ():
                part = found if model == ALL_MODELS else found[found["model"] == model]
                if part.empty:
                    continue
                row: Row = {"comparison": comparison, "model": model, "measure": measure, "replicates": len(part)}
                row |= {"kl_low": part["low"].mean(), "kl_high": part["high"].mean()}
                at = {name: part["at_parts"].str[i] for i, name in enumerate(NAMES)}
                for name, values in {"mean": part["mean"], **at}.items():
                    one = over_runs(values, part, grid.tables.confidence)
                    key = "" if name == "mean" else f"_{name}"
                    row |= {f"difference{key}": one.estimate, f"low{key}": one.low, f"high{key}": one.high}
                    row["over"] = one.over
                rows.append(row)
    return pd.DataFrame(rows)


def run_rows(results: GridResults) -> pd.DataFrame:
    """Each method at each beta at the end of training, over its replicates."""
    points, confidence = results.frontier, results.grid.tables.confidence
    rows = []
    final = points[points["steps"].isna() & points["policy"].notna()]
    for model, run in itertools.product(results.grid.models, results.grid.frontier):
        part = final[(final["model"] == model) & (final["method"] == run.method) & (final["beta"] == run.beta)]
        row: Row = {"model": model, "method": run.method, "beta": run.beta, "replicates": part["replicate"].nunique()}
        for measure in ("kl_sft", *(name for name in MEASURES if is_measured(points, name)), "tokens"):
            one = over_runs(part[measure], part, confidence)
            row |= {measure: one.estimate, f"{measure}_low": one.low, f"{measure}_high": one.high}
        rows.append(row)
    return pd.DataFrame(rows)


def turn_note(results: GridResults, rows: pd.DataFrame) -> Iterable[str]:
    """At which beta the mean of each method's gold reward is highest."""
    if "gold" not in rows:
        return
    for (model, method), part in rows.groupby(["model", "method"], sort=False):
        best = part.loc[part["gold"].idxmax()]
        smallest = best["beta"] == part["beta"].min()
        turn = "the smallest" if smallest else "lower at each smaller one"
        yield f"{model}, {method}: the mean gold reward is highest at a beta of {best['beta']:g}, {turn}."


def trained_on_note(results: GridResults, rows: pd.DataFrame) -> Iterable[str]:
    """Which rewards the columns have, where methods combine several reward models."""
    if "reward_trained_on" in rows:
        yield (
            "reward: by the reward model that methods without a `reward` of their own are trained against. "
            "reward_trained_on: by the reward that the method is trained against, with the same mean and standard "
            "deviation on SFT 1's samples."
        )


def single_note(results: GridResults, rows: pd.DataFrame) -> Iterable[str]:
    """Which methods have no curve."""
    trained = results.frontier.dropna(subset=["method"])
    points = trained[["method", "beta", "steps"]].drop_duplicates().groupby("method", sort=False).size()
    if single := [method for method, count in points.items() if count == 1]:
        among = (
            f"; among each other by how far each is above the curve of {results.grid.frontier_curve} at its own KL"
            if results.grid.frontier_curve
            else ""
        )
        yield (
            f"{', '.join(single)}: one policy, which is compared with a curve at the policy's KL{among}. Only in "
            "replicates where the curve reaches the KL."
        )


def limits(name: str) -> Column:
    """A measure with its interval over runs."""
    return only_if(has(name), interval(name, name, f"{name}_low", f"{name}_high"))


def at_part(name: str) -> Column:
    """The difference at a part of the shared range."""
    return interval(f"at {name}", f"difference_{name}", f"low_{name}", f"high_{name}")


def has_frontier(grid: Grid) -> bool:
    """Whether the grid has these tables."""
    return bool(grid.frontier)


def has_several_comparisons(grid: Grid) -> bool:
    """Whether the differences at equal KL need a figure of their own."""
    return len(on_the_frontier(grid)) > 1


EQUAL_KL = Table(
    "equal_kl",
    "Methods at equal KL",
    equal_kl_rows,
    [
        *map(copied, ("comparison", "model", "measure", "replicates")),
        figure("kl_low", "KL from", digits=2),
        figure("kl_high", "to", digits=2),
        interval("mean difference", "difference"),
        *map(at_part, NAMES),
    ],
    [
        "First method minus the second at the same KL(policy, SFT 1), in the range of KL that both reach in a "
        "replicate; at a quarter, half and three quarters of it, and its mean. Each method's curve is a parabola in "
        "the square root of the KL through its runs at all betas and the checkpoints on their way. Brackets: intervals "
        "over runs (replicates).",
        single_note,
    ],
    is_made=has_frontier,
)
FRONTIER = Table(
    "frontier",
    "Methods at several betas",
    run_rows,
    [
        *map(copied, ("model", "method")),
        Column("beta", lambda rows: [f"{value:g}" for value in rows["beta"]]),
        copied("replicates"),
        *map(limits, ("kl_sft", *MEASURES)),
        figure("tokens", digits=1),
    ],
    [
        "At the end of training, on held-out prompts at temperature 1. Brackets: intervals over runs (replicates).",
        trained_on_note,
        turn_note,
    ],
    is_made=has_frontier,
)
