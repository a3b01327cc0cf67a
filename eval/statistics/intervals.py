"""Intervals of means and rates, over training runs and questions (crossed.py)."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from eval.statistics.crossed import Cells, Over, Variance, crossed_variance, mean_weights, ratio_influence

GAMES = 2  # of a match: each order of the answers is judged


class Interval(NamedTuple):
    """An estimate with its confidence limits; NaN where there are none."""

    estimate: float
    low: float
    high: float
    n: int  # questions
    over: Over = ""  # what the interval is over


def t_interval(estimate: float, variance: Variance, confidence: float) -> Interval:
    """Student's interval."""
    reach = float(stats.t.ppf((1 + confidence) / 2, variance.df)) * np.sqrt(variance.value)
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
        shrink = stats.norm.ppf(1 - tail) / stats.t.ppf(1 - tail, variance.df)
        size = min(estimate * (1 - estimate) / variance.value * float(shrink) ** 2, games)
    won, lost = estimate * size, (1 - estimate) * size
    low = float(stats.beta.ppf(tail, won, lost + 1)) if won > 0 else 0.0
    high = float(stats.beta.ppf(1 - tail, won + 1, lost)) if lost > 0 else 1.0
    return Interval(estimate, low, high, variance.questions, variance.over)


def win_rate(frame: pd.DataFrame, confidence: float) -> Interval:
    """Adjusted win rate: sum(points) / sum(weight) of matches with weight, with its interval.

    Columns: points, weight, question_id, and model and replicate where there are several.
    """
    if frame.empty:
        return Interval(np.nan, np.nan, np.nan, 0)
    weights = frame["weight"].to_numpy(dtype=float)
    estimate, influence = ratio_influence(frame["points"].to_numpy(dtype=float), weights)
    return rate_interval(estimate, crossed_variance(influence, Cells.of(frame)), GAMES * len(frame), confidence)


def mean(values: "pd.Series[Any]", frame: pd.DataFrame, confidence: float, pooled: bool = False) -> Interval:
    """Mean of values, one per row of `frame` (question_id, model, replicate), with its interval.

    Each question of a replicate counts once; with `pooled` each value.
    """
    known = values.notna().to_numpy()
    given, rows = values.to_numpy(dtype=float)[known], frame[known]
    if not len(given):
        return Interval(np.nan, np.nan, np.nan, 0)
    cells = Cells.of(rows)
    weights = np.ones(len(given)) if pooled else mean_weights(cells)
    estimate, influence = ratio_influence(weights * given, weights)
    return t_interval(estimate, crossed_variance(influence, cells), confidence)
