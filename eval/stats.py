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
    return Interval(estimate, *_bootstrap((p, w), _ratio, confidence, resamples, seed), n)


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
    return Interval(estimate, *_bootstrap((s, c), _ratio, confidence, resamples, seed), len(s))


def _ratio(points: np.ndarray, weights: np.ndarray, axis: int = -1) -> np.ndarray:
    return points.sum(axis=axis) / weights.sum(axis=axis)


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
    found = np.array(values, dtype=float)
    if len(found) == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    estimate = float(found.mean())
    if len(found) == 1:
        return Interval(estimate, np.nan, np.nan, 1)
    if np.allclose(found, found[0]):
        return Interval(estimate, estimate, estimate, len(found))

    def mean(values: np.ndarray, axis: int = -1) -> np.ndarray:
        return values.mean(axis=axis)

    return Interval(estimate, *_bootstrap((found,), mean, confidence, resamples, seed), len(found))


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
        low, high = _bootstrap((every,), of, confidence, resamples, seed, vectorized=False)
    return Interval(estimate, low, high, questions)


def _bootstrap(
    data: tuple[np.ndarray, ...],
    statistic: object,
    confidence: float,
    resamples: int,
    seed: int,
    vectorized: bool = True,
) -> tuple[float, float]:
    found = stats.bootstrap(
        data,
        statistic,
        paired=len(data) > 1,
        vectorized=vectorized,
        confidence_level=confidence,
        n_resamples=resamples,
        method=METHOD,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)
