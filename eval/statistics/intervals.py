"""Intervals of means and rates, over training runs and questions (crossed.py)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
import scipy

from eval.statistics.crossed import Cells, Over, Variance, crossed_variance, mean_weights, ratio_influence

GAMES = 2  # of a match: each order of the answers is judged


class Interval(NamedTuple):
    """An estimate with its confidence limits; NaN where there are none."""

    estimate: float
    low: float
    high: float
    n: int  # questions; runs, for figures of whole runs
    over: Over = ""  # what the interval is over


class Estimated(Protocol):
    """What has an interval at every level of confidence."""

    def interval(self, confidence: float) -> Interval: ...


@dataclass(frozen=True)
class Estimate:
    """A mean, or with `games` the rate of so many games, and its variance."""

    value: float
    variance: Variance
    games: int | None = None

    def interval(self, confidence: float) -> Interval:
        """Student's interval of a mean, `rate_interval` of a rate."""
        if self.games is None:
            return t_interval(self.value, self.variance, confidence)
        return rate_interval(self.value, self.variance, self.games, confidence)


NO_INTERVAL = Interval(np.nan, np.nan, np.nan, 0)
SMALLEST_P, LARGEST_P = 1e-9, 1 - 1e-9


def p_value(interval: Callable[[float], Interval], threshold: float) -> float:
    """Two-sided p-value of an estimate against a threshold: 1 - the highest confidence that excludes it.

    NaN where there is no interval; at least 1e-9.
    """
    if np.isnan((middle := interval(0.5)).low):
        return np.nan
    side = "low" if middle.estimate > threshold else "high"

    def distance(p: float) -> float:
        """Above 0 where the interval excludes the threshold."""
        limit: float = getattr(interval(1 - p), side)
        return limit - threshold if side == "low" else threshold - limit

    if distance(LARGEST_P) <= 0:
        return 1.0
    if distance(SMALLEST_P) >= 0:
        return SMALLEST_P
    return float(scipy.optimize.brentq(distance, SMALLEST_P, LARGEST_P, xtol=1e-9, rtol=1e-6))


def t_interval(estimate: float, variance: Variance, confidence: float) -> Interval:
    """Student's interval."""
    reach = float(scipy.stats.t.ppf((1 + confidence) / 2, variance.df)) * np.sqrt(variance.value)
    return Interval(estimate, estimate - reach, estimate + reach, variance.questions, variance.over)


def rate_interval(estimate: float, variance: Variance, games: float, confidence: float) -> Interval:
    """Clopper and Pearson's interval of a rate, with the effective sample size of the design (Korn and Graubard 1998).

    The size is that of a simple random sample with the same variance, times (z / t)^2 for the degrees of freedom; at
    most the number of games (two a match), and the number of questions where nothing varies. The limits stay in [0, 1].
    """
    if np.isnan(variance.value):
        return Interval(estimate, np.nan, np.nan, variance.questions, variance.over)
    tail = (1 - confidence) / 2
    size = float(variance.questions)
    if 0 < estimate < 1 and variance.value > 0:
        shrink = scipy.stats.norm.ppf(1 - tail) / scipy.stats.t.ppf(1 - tail, variance.df)
        size = min(estimate * (1 - estimate) / variance.value * float(shrink) ** 2, games)
    won, lost = estimate * size, (1 - estimate) * size
    low = float(scipy.stats.beta.ppf(tail, won, lost + 1)) if won > 0 else 0.0
    high = float(scipy.stats.beta.ppf(1 - tail, won + 1, lost)) if lost > 0 else 1.0
    return Interval(estimate, low, high, variance.questions, variance.over)


def rate_estimate(frame: pd.DataFrame) -> Estimate:
    """Adjusted win rate: sum(points) / sum(weight) of matches with weight; of several benchmarks the mean.

    Columns: points, weight, question_id, and model, benchmark and replicate where there are several.
    """
    cells = Cells.of(frame)
    weights = frame["weight"].to_numpy(dtype=float)
    value, influence = ratio_influence(frame["points"].to_numpy(dtype=float), weights, cells.benchmark)
    return Estimate(value, crossed_variance(influence, cells), GAMES * len(frame))


def mean_estimate(values: "pd.Series[Any]", frame: pd.DataFrame, pooled: bool = False) -> Estimate:
    """Mean of values, one per row of `frame` (question_id, model, benchmark, replicate); of several benchmarks theirs.

    Each question of a replicate counts once; with `pooled` each value.
    """
    cells = Cells.of(frame)
    weights = np.ones(len(frame)) if pooled else mean_weights(cells)
    value, influence = ratio_influence(weights * values.to_numpy(dtype=float), weights, cells.benchmark)
    return Estimate(value, crossed_variance(influence, cells))


def signed_estimate(parts: Sequence[tuple[int, pd.DataFrame]]) -> Estimate:
    """Sum of the rates (`rate_estimate`) of several frames, each with its sign.

    What frames share is taken into account: replicates of the same model and name, and questions of the same benchmark
    and id.
    """
    values, influences = [], []
    for sign, frame in parts:
        weights, points = (frame[name].to_numpy(dtype=float) for name in ("weight", "points"))
        value, influence = ratio_influence(points, weights, Cells.of(frame).benchmark)
        values.append(sign * value)
        influences.append(sign * influence)
    together = Cells.of(pd.concat([frame for _, frame in parts]))
    return Estimate(sum(values), crossed_variance(np.concatenate(influences), together))


def contrast_estimate(first: pd.DataFrame, second: pd.DataFrame) -> Estimate:
    """`rate_estimate` of the first frame less that of the second, whose benchmarks are others."""
    return signed_estimate([(1, first), (-1, second)])


def win_rate(frame: pd.DataFrame, confidence: float) -> Interval:
    """`rate_estimate` with its interval; NaN without matches."""
    return NO_INTERVAL if frame.empty else rate_estimate(frame).interval(confidence)


def mean(values: "pd.Series[Any]", frame: pd.DataFrame, confidence: float, pooled: bool = False) -> Interval:
    """`mean_estimate` of the values that are known, with its interval; NaN without values."""
    known = values.notna()
    return mean_estimate(values[known], frame[known], pooled).interval(confidence) if known.any() else NO_INTERVAL
