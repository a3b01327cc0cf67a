"""The win rate at equal lengths: AlpacaEval 2's length control (Dubois et al. 2024), by logistic regression.

P(a wins) = σ(model + slope · tanh(Δ / sd(Δ)) + difference · difficulty), where Δ is the length of a's answer less that
of b's, in characters; the controlled win rate is the mean at Δ = 0. A match is worth its points and its weight.

Two departures. AlpacaEval fits an instruction's difficulty once, to the many models of its leaderboard; here it is what
the other models at hand have earned with it, and is left out where there are none. And it shrinks coefficients, for
which ours are too few.

A controlled win rate can be played upon, by answers that are not long but empty. `far` says where it departs far from
the raw one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from eval.statistics.logistic import MOST_STRENGTH, fit
from salsa.runtime.log import log

FAR_SHARE, FAR = 0.25, 0.10  # AlpacaEval's: a quarter of the way to the end of the scale, and at least 0.10
CAN_NOT = float("nan")


class Controlled(NamedTuple):
    """The length-controlled win rate with its limits; NaN where it cannot be had."""

    estimate: float
    low: float
    high: float
    far: bool


NOT_CONTROLLED = Controlled(CAN_NOT, CAN_NOT, CAN_NOT, False)


def is_far(raw: float, controlled: float) -> bool:
    """Whether the controlled win rate departs so far from the raw one that it needs an explanation."""
    least = min(raw - FAR_SHARE * raw, raw - FAR)
    most = max(raw + FAR_SHARE * (1 - raw), raw + FAR)
    return not least <= controlled <= most


def warn(cells: pd.DataFrame, names: Sequence[str]) -> None:
    """One line about the cells, known by their columns `names`, whose controlled win rate is far off the plain one."""
    far = cells.loc[cells["lc_far"].astype(bool), list(names)]
    if len(far):
        named = "; ".join(" ".join(map(str, row)) for row in far.itertuples(index=False))
        log.warning("the length-controlled win rate is far off the plain one: length, or a trick, decides: %s", named)


def difficulty(pool: pd.DataFrame, group: str) -> pd.Series:
    """For each row of a comparison, the logit of what the other groups' rows have earned with the same turn.

    Half a win and half a loss are added, so that it is finite; NaN where there is no other group.
    """
    keys = ["question_id", "turn"]
    sums = {name: pool.groupby(keys)[name].transform("sum") for name in ("points", "weight")}
    own = {name: pool.groupby([*keys, group])[name].transform("sum") for name in ("points", "weight")}
    points, weight = (sums[name] - own[name] for name in ("points", "weight"))
    return pd.Series(special.logit((points + 0.5) / (weight + 1)), pool.index).where(weight > 0)


def length_controlled(matches: pd.DataFrame, confidence: float) -> Controlled:
    """Of rows {question_id, points, weight (above 0), lengths: characters of a's and b's answer, difficulty}."""
    if matches.empty or matches["lengths"].isna().any():
        return NOT_CONTROLLED
    weights = matches["weight"].to_numpy(dtype=float)
    shares = matches["points"].to_numpy(dtype=float) / weights
    difference = np.array([a - b for a, b in matches["lengths"]], dtype=float)
    columns: list[Sequence[float] | np.ndarray] = [np.ones(len(matches))]
    if not difference.min() <= 0 <= difference.max():
        # One side's answers are always the longer: what equal ones would earn is outside of what was seen.
        return NOT_CONTROLLED
    if difference.any():
        columns.append(np.tanh(difference / difference.std()))
    lengths_at = len(columns) - 1
    hard = matches["difficulty"].to_numpy(dtype=float)
    if np.isfinite(hard).all() and hard.std() > 0:
        columns.append(hard)
    design = np.column_stack(columns)
    found = fit(shares, weights, design, list(matches["question_id"]))
    if np.abs(found.coefficients).max() > MOST_STRENGTH:
        return NOT_CONTROLLED
    equal = design.copy()
    equal[:, 1 : lengths_at + 1] = 0
    estimate, low, high = found.share(equal, weights, confidence)
    return Controlled(estimate, low, high, is_far(float((weights * shares).sum() / weights.sum()), estimate))
