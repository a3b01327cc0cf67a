"""Intervals over questions. Turns, pairs and games of a question are resampled together, as they are not independent.

These intervals describe the variation over questions of the same kind, not over training runs: the policies are fixed.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

METHOD = "BCa"


class Interval(NamedTuple):
    """An estimate with its confidence limits; NaN if nothing was measured."""

    estimate: float
    low: float
    high: float
    n: int  # questions


def ratio_interval(
    points: Sequence[float], weights: Sequence[float], confidence: float, resamples: int, seed: int
) -> Interval:
    """sum(points) / sum(weights) in [0, 1], with BCa bootstrap limits over questions (Efron 1987).

    `points` and `weights` [n] are sums within a question. If all questions agree, the bootstrap would give an interval
    of width 0; the limits are then Clopper and Pearson's for n questions that all won or all lost, and Wilson's for all
    tied.
    """
    kept = [(p, w) for p, w in zip(points, weights, strict=True) if w > 0]
    n = len(kept)
    if n == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    p, w = (np.array(column, dtype=float) for column in zip(*kept, strict=True))
    estimate = float(p.sum() / w.sum())
    if np.allclose(p, estimate * w):
        return _unanimous(estimate, n, confidence)
    return Interval(estimate, *_ratio_limits(p, w, confidence, resamples, seed), n)


def pooled_mean_interval(
    sums: Sequence[float], counts: Sequence[float], confidence: float, resamples: int, seed: int
) -> Interval:
    """Mean of all values, with BCa bootstrap limits over questions.

    A question may have several values: `sums` and `counts` [n] are per question. If all questions agree, the limits
    equal the mean; a single question has none (NaN).
    """
    s, c = np.array(sums, dtype=float), np.array(counts, dtype=float)
    if len(s) == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    estimate = float(s.sum() / c.sum())
    if len(s) == 1:
        return Interval(estimate, np.nan, np.nan, 1)
    if np.allclose(s, estimate * c):
        return Interval(estimate, estimate, estimate, len(s))
    return Interval(estimate, *_ratio_limits(s, c, confidence, resamples, seed), len(s))


def _unanimous(estimate: float, n: int, confidence: float) -> Interval:
    if estimate in (0.0, 1.0):
        low, high = stats.binomtest(int(estimate * n), n).proportion_ci(confidence, method="exact")
    else:
        # Ties count as half a win, so the count may not be an integer; statsmodels accepts that, scipy does not.
        low, high = proportion_confint(estimate * n, n, 1 - confidence, method="wilson")
    return Interval(estimate, float(min(estimate, low)), float(max(estimate, high)), n)


def mean_interval(values: Sequence[float], confidence: float, resamples: int, seed: int) -> Interval:
    """Mean of one value per question, [n], with BCa bootstrap limits; see `pooled_mean_interval`."""
    return pooled_mean_interval(values, [1] * len(values), confidence, resamples, seed)


def statistic_interval(
    of: Callable[[np.ndarray], float], questions: int, confidence: float, resamples: int, seed: int
) -> Interval:
    """Any statistic `of(question indices)` with BCa bootstrap limits; NaN where it is undefined for a resample."""
    indices = np.arange(questions)
    estimate = of(indices) if questions else np.nan
    if questions < 2 or np.isnan(estimate):
        return Interval(estimate, np.nan, np.nan, questions)
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        # If all resamples agree, scipy warns and returns NaN limits.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        limits = stats.bootstrap(
            (indices,),
            of,
            vectorized=False,
            confidence_level=confidence,
            n_resamples=resamples,
            method=METHOD,
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return Interval(estimate, float(limits.low), float(limits.high), questions)


def _ratio_limits(
    points: np.ndarray, weights: np.ndarray, confidence: float, resamples: int, seed: int
) -> tuple[float, float]:
    """BCa limits of sum(points) / sum(weights), [n] each: the same resamples and results as scipy.stats.bootstrap.

    scipy's jackknife copies n x n values, half of the run time at n = 1,000. For a ratio of sums it takes two
    subtractions (Efron and Tibshirani 1993, equations 14.9 to 14.15).
    """
    n = len(points)
    estimate = points.sum() / weights.sum()
    drawn = np.random.default_rng(seed).integers(0, n, (resamples, n))
    ratios = points.take(drawn).sum(axis=1) / weights.take(drawn).sum(axis=1)
    below = ((ratios < estimate).sum() + (ratios <= estimate).sum()) / (2 * resamples)
    if below in (0, 1):
        return np.nan, np.nan  # too few resamples: all are on one side, and BCa's bias correction is infinite
    bias = stats.norm.ppf(below)
    without_one = (points.sum() - points) / (weights.sum() - weights)
    influence = without_one.mean() - without_one
    acceleration = (influence**3).sum() / (6 * (influence**2).sum() ** 1.5)
    tails = bias + stats.norm.ppf([(1 - confidence) / 2, (1 + confidence) / 2])
    shares = stats.norm.cdf(bias + tails / (1 - acceleration * tails))
    low, high = np.percentile(ratios, 100 * shares)
    return float(low), float(high)
