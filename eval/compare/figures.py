"""Differences between the figures of two grids.

The training runs of two grids are independent draws, so the replicates of each have their own noise. The noise of
questions that both grids asked cancels as far as both answer them alike.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from eval.claims.observations import COLLAPSED, observations, of_benchmarks
from eval.claims.verdicts import holm
from eval.grid.claims import PER_QUESTION, Claim, Condition
from eval.grid.layout import ALL_MODELS
from eval.grid.results import GridResults
from eval.statistics.intervals import Estimate, p_value, rate_estimate, signed_estimate
from eval.tables.claimed import in_scope

ALL = ALL_MODELS  # of models or benchmarks
Row = dict[str, Any]
Signed = list[tuple[int, pd.DataFrame]]
COLUMNS = ["claim", "figure", "of", "model", "benchmark", "a", "b", "difference", "low", "high", "over", "p", "p_holm"]


def common_claims(a: GridResults, b: GridResults) -> dict[str, Claim]:
    """Claims that both grids define alike."""
    return {name: claim for name, claim in a.grid.claims.items() if b.grid.claims.get(name) == claim}


def common(first: list[str], second: list[str]) -> list[str]:
    """Names in both lists, in the order of the first."""
    return [name for name in first if name in second]


def is_mean(condition: Condition) -> bool:
    """Whether the figure is a mean, so that its difference between grids has an interval."""
    return condition.statistic == "mean" and condition.measure != COLLAPSED


def signed_frames(
    results: GridResults, claim: Claim, condition: Condition, models: list[str], names: list[str]
) -> Signed:
    """The points and weights of a figure over these models and benchmarks; what is subtracted has the sign -1."""
    rows = observations(results, claim.comparison, condition)
    if rows.empty:
        return []
    rows = rows[rows["model"].isin(models)]
    if condition.of in PER_QUESTION:
        rows = of_benchmarks(rows, names)
    chosen = rows if condition.benchmarks is None else of_benchmarks(rows, condition.benchmarks)
    return [(1, chosen)] if condition.less is None else [(1, chosen), (-1, of_benchmarks(rows, condition.less))]


def own_runs(signed: Signed, grid: str, sign: int) -> Signed:
    """The frames with the grid's mark on their models, so that replicates of the same name are other draws."""
    return [(sign * part, frame.assign(model=grid + frame["model"])) for part, frame in signed]


def scopes(condition: Condition, models: list[str], names: list[str]) -> Iterator[tuple[str, str]]:
    """(model, benchmark) of each row: all, and the cells where a figure has them."""
    yield ALL, ALL
    if condition.of in PER_QUESTION and condition.less is None:
        for model in models:
            for benchmark in names if condition.benchmarks is None else common(names, condition.benchmarks):
                yield model, benchmark


def difference_row(a: Signed, b: Signed, confidence: float) -> Row:
    """The figure in both grids, and a less b with its interval and p-value.

    The p-value is NaN where an interval is not over runs: one replicate does not tell how much runs vary.
    """
    values = [sum(sign * rate_estimate(frame).value for sign, frame in signed) for signed in (a, b)]
    estimate: Estimate = signed_estimate([*own_runs(a, "a/", 1), *own_runs(b, "b/", -1)])
    interval = estimate.interval(confidence)
    has_noise = "runs" in interval.over and min(replicates_of(a), replicates_of(b)) > 1
    return {
        **{"a": values[0], "b": values[1], "difference": interval.estimate, "low": interval.low},
        **{"high": interval.high, "over": interval.over},
        "p": p_value(estimate.interval, 0.0) if has_noise else np.nan,
    }


def replicates_of(signed: Signed) -> int:
    """The largest number of replicates of a model."""
    return max(int(frame.groupby("model")["replicate"].nunique().max()) for _, frame in signed)


def differences(a: GridResults, b: GridResults) -> pd.DataFrame:
    """One row for each figure over all common models and benchmarks, and one for each common cell.

    Holm's correction is over the figures, and over the cells of a figure.
    """
    models, names = common(a.grid.models, b.grid.models), common(list(a.grid.benchmarks), list(b.grid.benchmarks))
    confidence = a.grid.tables.confidence
    rows: list[Row] = []
    for name, claim in common_claims(a, b).items():
        for condition in filter(is_mean, claim.conditions):
            both = [signed_frames(results, claim, condition, models, names) for results in (a, b)]
            cells: list[Row] = []
            for model, benchmark in scopes(condition, models, names):
                first, second = (
                    [(sign, in_scope(frame, model, benchmark)) for sign, frame in signed] for signed in both
                )
                if not (first and second) or any(frame.empty for _, frame in (*first, *second)):
                    continue
                place = {"claim": name, "figure": condition.figure, "of": condition.of, "model": model}
                cells.append({**place, "benchmark": benchmark, **difference_row(first, second, confidence)})
            single = [cell for cell in cells if cell["model"] != ALL]
            for cell, p in zip(single, holm([cell["p"] for cell in single]), strict=True):
                cell["p_holm"] = p
            rows += cells
    whole = [row for row in rows if row["model"] == ALL]
    for row, p in zip(whole, holm([row["p"] for row in whole]), strict=True):
        row["p_holm"] = p
    return pd.DataFrame(rows, columns=COLUMNS)


def sentence(rows: pd.DataFrame, confidence: float, margin: float) -> str:
    """Whether the grids' figures are the same, differ, or whether one cannot tell.

    The same: all figures are equal; or none differs, and the intervals of all win rates' differences are within the
    margin. Different: a figure differs after Holm's correction.
    """
    if rows.empty:
        return "Cannot tell: the grids have no figure in common."
    whole = rows[rows["model"] == ALL]
    if (rows["a"] == rows["b"]).all():
        return f"The same: all {len(rows)} figures are equal."
    differing = whole[whole["p_holm"] <= 1 - confidence]
    if len(differing):
        first = differing.loc[differing["p_holm"].idxmin()]
        more = f", and {len(differing) - 1} more figures" if len(differing) > 1 else ""
        return (
            f"Different: {first['figure']} ({first['claim']}) by {first['difference']:.3f} "
            f"[{first['low']:.3f}, {first['high']:.3f}]{more}."
        )
    if whole["p"].isna().all():
        return "Cannot tell: a grid has one replicate, so nobody knows how much its runs vary."
    rates = whole[whole["of"] == "judgments"]
    reach = float(rates[["low", "high"]].abs().max().max()) if len(rates) else np.inf
    if reach < margin:
        return f"The same: no figure differs, and win rates differ by less than {margin:g}."
    wide = f"win rates may differ by up to {reach:.3f}" if len(rates) else "no win rate is in both grids"
    return f"Cannot tell: no figure differs, but {wide} (the margin is {margin:g})."
