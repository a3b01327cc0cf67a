"""Intervals over questions: a question's turns, pairs and games stay together, for they are not independent.

They say how far the result would move with other questions of the same kind. They do not say how far it would move
with other training runs: the policies are taken as they are.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

METHOD = "BCa"


class Interval(NamedTuple):
    """An estimate with its confidence limits; NaN where nothing was measured."""

    estimate: float
    low: float
    high: float
    n: int  # questions


def ratio_interval(
    points: Sequence[float], weights: Sequence[float], confidence: float, resamples: int, seed: int
) -> Interval:
    """sum(points) / sum(weights) over questions, points and weights [n] being sums within a question, in [0, 1].

    BCa bootstrap over questions (Efron 1987, by scipy). Where all questions agree the bootstrap has nothing to draw
    from and would say that there is no doubt: there the limits are Clopper and Pearson's for n questions that all won,
    or all lost; in between (all tied) Wilson's for half of n.
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
    """sum(sums) / sum(counts) over questions, with BCa bootstrap limits; where all questions agree, that value;
    of one question none (NaN).

    The mean of all values, [n] sums and numbers of which are given by question: a question may have several.
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
        # Half a win each: of an odd number of ties the count is no integer, which statsmodels takes and scipy does not.
        low, high = proportion_confint(estimate * n, n, 1 - confidence, method="wilson")
    return Interval(estimate, float(min(estimate, low)), float(max(estimate, high)), n)


def mean_interval(values: Sequence[float], confidence: float, resamples: int, seed: int) -> Interval:
    """The mean of one value a question, [n], with BCa bootstrap limits; of equal values, that value.

    One value alone has no limits (NaN): it does not say how far another question's would be from it.
    """
    return pooled_mean_interval(values, [1] * len(values), confidence, resamples, seed)


def statistic_interval(
    of: Callable[[np.ndarray], float], questions: int, confidence: float, resamples: int, seed: int
) -> Interval:
    """`of(numbers of questions)` with BCa bootstrap limits; NaN where a choice of questions has no such figure."""
    every = np.arange(questions)
    estimate = of(every) if questions else np.nan
    if questions < 2 or np.isnan(estimate):
        return Interval(estimate, np.nan, np.nan, questions)
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        # Where all choices give the same, scipy warns and gives NaN: the limits cannot be had.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            (every,),
            of,
            vectorized=False,
            confidence_level=confidence,
            n_resamples=resamples,
            method=METHOD,
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return Interval(estimate, float(found.low), float(found.high), questions)


def _ratio_limits(
    points: np.ndarray, weights: np.ndarray, confidence: float, resamples: int, seed: int
) -> tuple[float, float]:
    """BCa limits of sum(points) / sum(weights), [n] each, as scipy.stats.bootstrap draws and computes them.

    scipy makes the n samples without one question by n x n copies, half of the time for a thousand questions. For a
    ratio of sums they are two subtractions (Efron and Tibshirani 1993, equations 14.9 to 14.15).
    """
    n = len(points)
    estimate = points.sum() / weights.sum()
    drawn = np.random.default_rng(seed).integers(0, n, (resamples, n))
    ratios = points.take(drawn).sum(axis=1) / weights.take(drawn).sum(axis=1)
    below = ((ratios < estimate).sum() + (ratios <= estimate).sum()) / (2 * resamples)
    if below in (0, 1):
        return np.nan, np.nan  # so few resamples that all lie on one side: BCa's correction is infinite
    bias = stats.norm.ppf(below)
    without_one = (points.sum() - points) / (weights.sum() - weights)
    influence = without_one.mean() - without_one
    acceleration = (influence**3).sum() / (6 * (influence**2).sum() ** 1.5)
    tails = bias + stats.norm.ppf([(1 - confidence) / 2, (1 + confidence) / 2])
    shares = stats.norm.cdf(bias + tails / (1 - acceleration * tails))
    low, high = np.percentile(ratios, 100 * shares)
    return float(low), float(high)
