"""Length-controlled win rate as in AlpacaEval 2 (Dubois et al. 2024), by logistic regression.

P(a wins) = σ(model + slope · tanh(Δ / sd(Δ)) + difference · difficulty), where Δ is the length of a's answer minus that
of b's, in characters. The controlled win rate is the mean at Δ = 0. A match counts with its points and weight.

There are two differences to AlpacaEval. It fits an instruction's difficulty to the many models of its leaderboard; here
difficulty comes from the other models at hand, and is left out if there are none. It also regularises its coefficients,
of which we have too few.

The controlled win rate can be gamed by short empty answers. `far` marks where it is far from the raw one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy

from eval.statistics.crossed import Cells
from eval.statistics.logistic import MOST_STRENGTH, fit
from salsa.runtime.log import log

FAR_SHARE, FAR = 0.25, 0.10  # AlpacaEval's thresholds: a quarter of the way to the end of the scale, at least 0.10
NAN = float("nan")


class Controlled(NamedTuple):
    """Length-controlled win rate with its limits; NaN if it is not identified."""

    estimate: float
    low: float
    high: float
    far: bool


NOT_CONTROLLED = Controlled(NAN, NAN, NAN, False)


def is_far(raw: float, controlled: float) -> bool:
    """Whether the controlled win rate is so far from the raw one that it needs an explanation."""
    least = min(raw - FAR_SHARE * raw, raw - FAR)
    most = max(raw + FAR_SHARE * (1 - raw), raw + FAR)
    return not least <= controlled <= most


def warn(cells: pd.DataFrame, names: Sequence[str]) -> None:
    """Warn about cells whose controlled win rate is far from the raw one; the columns `names` identify a cell."""
    far = cells.loc[cells["lc_far"].astype(bool), list(names)]
    if len(far):
        cells_text = "; ".join(" ".join(map(str, row)) for row in far.itertuples(index=False))
        log.warning("the length-controlled win rate is far from the raw one; length or gaming decides: %s", cells_text)


def difficulty(pool: pd.DataFrame, group: str) -> pd.Series:
    """For each row, the logit of the other groups' win rate on the same question and turn.

    Half a win and half a loss are added to keep it finite; NaN if there is no other group.
    """
    keys = ["question_id", "turn"]
    sums = {name: pool.groupby(keys)[name].transform("sum") for name in ("points", "weight")}
    group_sums = {name: pool.groupby([*keys, group])[name].transform("sum") for name in ("points", "weight")}
    points, weight = (sums[name] - group_sums[name] for name in ("points", "weight"))
    return pd.Series(scipy.special.logit((points + 0.5) / (weight + 1)), pool.index).where(weight > 0)


def length_controlled(matches: pd.DataFrame, confidence: float) -> Controlled:
    """Length-controlled win rate of `matches`.

    Columns: question_id, points, weight (above 0), lengths (characters of a's and b's answer), difficulty;
    model and replicate where there are several.
    """
    if matches.empty or matches["lengths"].isna().any():
        return NOT_CONTROLLED
    weights = matches["weight"].to_numpy(dtype=float)
    shares = matches["points"].to_numpy(dtype=float) / weights
    difference = np.array([a - b for a, b in matches["lengths"]], dtype=float)
    columns: list[Sequence[float] | np.ndarray] = [np.ones(len(matches))]
    if not difference.min() <= 0 <= difference.max():
        # One side is always longer, so equal lengths would be an extrapolation.
        return NOT_CONTROLLED
    if difference.any():
        columns.append(np.tanh(difference / difference.std()))
    lengths_at = len(columns) - 1
    difficulties = matches["difficulty"].to_numpy(dtype=float)
    if np.isfinite(difficulties).all() and difficulties.std() > 0:
        columns.append(difficulties)
    design = np.column_stack(columns)
    model_fit = fit(shares, weights, design, Cells.of(matches))
    if np.abs(model_fit.coefficients).max() > MOST_STRENGTH:
        return NOT_CONTROLLED
    equal = design.copy()
    equal[:, 1 : lengths_at + 1] = 0
    estimate, low, high, _ = model_fit.share(equal, weights, confidence)
    return Controlled(estimate, low, high, is_far(float((weights * shares).sum() / weights.sum()), estimate))
