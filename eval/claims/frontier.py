"""The frontiers of a grid: curves of each method in each replicate, and their differences."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from eval.grid.layout import Grid
from eval.statistics.frontier import Curve, above_curve, at_equal_kl
from salsa.config.config import FIRST_ROLE
from salsa.config.sections import Comparison

RUN = ["model", "replicate"]


def curves(points: pd.DataFrame, grid: Grid, measure: str) -> Iterator[tuple[str, str, str, Curve]]:
    """(model, replicate, method, curve) of each method that has one point, or enough for a parabola.

    RL seeds of a replicate share a curve; of a method at one beta without checkpoints on the way, their mean is the
    point. SFT 1 belongs to the methods that start from it.
    """
    for (model, replicate), part in points.groupby(RUN, sort=False):
        [start] = part.loc[part["policy"].isna(), measure]
        measured = part.dropna(subset=["method", measure])
        for method, run in measured.groupby("method", sort=False):
            if run.groupby(["beta", "steps"], dropna=False).ngroups == 1:
                run = run[["kl_sft", measure]].mean().to_frame().T
            starts = grid.methods[method].init == FIRST_ROLE and not np.isnan(start)
            curve = Curve.fit(list(run["kl_sft"]), list(run[measure]), float(start) if starts else None)
            if curve is not None:
                yield model, replicate, method, curve


def is_measured(points: pd.DataFrame, measure: str) -> bool:
    """Whether the grid has a frontier with this figure."""
    return measure in points and not points[measure].isna().all()


def differences_at_equal_kl(points: pd.DataFrame, grid: Grid, sides: Comparison, measure: str) -> pd.DataFrame:
    """One row for each model and replicate where both methods reach a common KL: columns of EqualKl.

    Methods with one policy each: where the curve of the grid's `frontier_curve` reaches both.
    """
    if not is_measured(points, measure):
        return pd.DataFrame()
    found = {(model, replicate, method): curve for model, replicate, method, curve in curves(points, grid, measure)}
    rows = []
    for model, replicate in dict.fromkeys(key[:2] for key in found):
        a, b = (found.get((model, replicate, side)) for side in (sides.a, sides.b))
        if a is None or b is None:
            continue
        curve = found.get((model, replicate, grid.frontier_curve or ""))
        singles = a.is_single and b.is_single
        equal = above_curve(a, b, curve) if singles and curve is not None else at_equal_kl(a, b)
        if equal is not None:
            rows.append({"model": model, "replicate": replicate, **vars(equal)})
    return pd.DataFrame(rows)
