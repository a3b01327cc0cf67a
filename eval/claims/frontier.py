"""The frontiers of a grid: curves of each method in each replicate, and their differences."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from eval.grid.layout import Grid
from eval.statistics.frontier import Curve, at_equal_kl
from salsa.config.config import FIRST_ROLE
from salsa.config.sections import Comparison

RUN = ["model", "replicate"]


def curves(points: pd.DataFrame, grid: Grid, measure: str) -> Iterator[tuple[str, str, str, Curve]]:
    """(model, replicate, method, curve) of each method that has one point, or enough for a parabola.

    RL seeds of a replicate share a curve. SFT 1 belongs to the methods that start from it.
    """
    for (model, replicate), part in points.groupby(RUN, sort=False):
        [start] = part.loc[part["policy"].isna(), measure]
        measured = part.dropna(subset=["method", measure])
        for method, run in measured.groupby("method", sort=False):
            starts = grid.methods[method].init == FIRST_ROLE and not np.isnan(start)
            curve = Curve.fit(list(run["kl_sft"]), list(run[measure]), float(start) if starts else None)
            if curve is not None:
                yield model, replicate, method, curve


def is_measured(points: pd.DataFrame, measure: str) -> bool:
    """Whether the grid has a frontier with this figure."""
    return measure in points and not points[measure].isna().all()


def differences_at_equal_kl(points: pd.DataFrame, grid: Grid, sides: Comparison, measure: str) -> pd.DataFrame:
    """One row for each model and replicate where both methods reach a common KL: columns of EqualKl."""
    if not is_measured(points, measure):
        return pd.DataFrame()
    found = {(model, replicate, method): curve for model, replicate, method, curve in curves(points, grid, measure)}
    rows = []
    for model, replicate in dict.fromkeys(key[:2] for key in found):
        a, b = (found.get((model, replicate, side)) for side in (sides.a, sides.b))
        equal = at_equal_kl(a, b) if a is not None and b is not None else None
        if equal is not None:
            rows.append({"model": model, "replicate": replicate, **vars(equal)})
    return pd.DataFrame(rows)
