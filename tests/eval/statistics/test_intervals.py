"""Intervals: simulated coverage, agreement with theory, and cases in which a bootstrap says nothing."""

import math

import numpy as np
import pytest
from scipy import stats

from eval.statistics.intervals import mean_interval, pooled_mean_interval, ratio_interval, statistic_interval


def test_interval_covers_the_truth_at_its_level():
    """Clustered win rates: questions differ in difficulty and have six judgments each. 400 trials, 90 %."""
    rng = np.random.default_rng(0)
    covered = naive = 0
    trials, n, judgments = 400, 60, 6
    for trial in range(trials):
        chance = rng.beta(1.5, 1.0, size=n)
        points = rng.binomial(judgments, chance)
        found = ratio_interval(list(points), [judgments] * n, 0.9, 400, trial)
        covered += found.low <= 0.6 <= found.high
        single = stats.binomtest(int(points.sum()), n * judgments).proportion_ci(0.9, method="wilson")
        naive += single.low <= 0.6 <= single.high
    assert abs(covered / trials - 0.9) < 0.05
    assert naive / trials < 0.8, "treating judgments as independent would undercover"


def test_large_sample_agrees_with_the_normal_approximation():
    values = np.random.default_rng(1).normal(2, 3, size=2000)
    found = mean_interval(list(values), 0.95, 2000, seed=1)
    error = values.std(ddof=1) / math.sqrt(len(values))
    assert found.estimate == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


@pytest.mark.parametrize("n", [2, 3, 17, 200])
def test_limits_equal_scipys(n):
    """The same samples and formula; skewed sums and unequal weights."""
    rng = np.random.default_rng(n)
    weights = rng.integers(1, 5, size=n).astype(float)
    points = rng.gamma(0.5, size=n) * weights

    def ratio(points, weights, axis=-1):
        return points.sum(axis=axis) / weights.sum(axis=axis)

    by_scipy = stats.bootstrap(
        (points, weights), ratio, paired=True, confidence_level=0.9, n_resamples=500, rng=np.random.default_rng(3)
    ).confidence_interval
    found = pooled_mean_interval(points, weights, 0.9, 500, seed=3)
    assert (found.low, found.high) == pytest.approx((by_scipy.low, by_scipy.high), rel=1e-12)


def test_one_resample_has_no_limits():
    found = mean_interval([1.0, 2.0, 4.0], 0.95, 1, seed=1)
    assert math.isnan(found.low) and math.isnan(found.high)


def test_weights_count():
    found = ratio_interval([6, 0, 1], [6, 2, 2], 0.95, 200, seed=1)
    assert found.estimate == pytest.approx(0.7)
    assert found.n == 3


@pytest.mark.parametrize(("rate", "low", "high"), [(1.0, 0.8316, 1.0), (0.0, 0.0, 0.1684), (0.5, 0.2993, 0.7007)])
def test_unanimous_questions_are_not_certainty(rate, low, high):
    """19 of 19: Clopper and Pearson's exact limits; for ties only, Wilson's around one half."""
    n = 19 if rate in (0, 1) else 20
    found = ratio_interval([rate] * n, [1] * n, 0.95, 500, seed=1)
    assert (found.estimate, found.n) == (rate, n)
    assert found.low == pytest.approx(low, abs=0.01)
    assert found.high == pytest.approx(high, abs=0.01)


def test_no_questions_give_nan():
    found = ratio_interval([0.0], [0], 0.95, 100, seed=1)
    assert found.n == 0
    assert math.isnan(found.estimate)
    assert mean_interval([], 0.95, 100, seed=1).n == 0


@pytest.mark.parametrize("found", [mean_interval([2.0], 0.95, 100, 1), pooled_mean_interval([6.0], [3], 0.95, 100, 1)])
def test_one_question_has_no_interval(found):
    """It does not show how much questions vary."""
    assert (found.estimate, found.n) == (2.0, 1)
    assert math.isnan(found.low) and math.isnan(found.high)


@pytest.mark.parametrize("points", [[1], [1] * 3, [0, 2, 2], [2] * 5, [1] * 4, [0, 1, 2, 2, 1, 0, 2], [0] * 7])
def test_swapping_the_sides_gives_the_mirror_image(points):
    """a against b and b against a, also with an odd number of ties."""
    weights = [2] * len(points)
    there = ratio_interval(points, weights, 0.95, 2000, 1)
    back = ratio_interval([2 - p for p in points], weights, 0.95, 2000, 1)
    assert back.estimate == pytest.approx(1 - there.estimate)
    # Where the bootstrap draws, a limit lies between two of its values, and the mirror's on the other side.
    near = 1e-12 if len(set(points)) == 1 else 0.02
    assert (1 - back.high, 1 - back.low) == pytest.approx((there.low, there.high), abs=near)


def test_the_seed_fixes_the_limits():
    values = list(np.random.default_rng(2).random(30))
    assert mean_interval(values, 0.95, 300, 1) == mean_interval(values, 0.95, 300, 1)
    assert mean_interval(values, 0.95, 300, 1) != mean_interval(values, 0.95, 300, 2)


def test_general_statistic_has_the_limits_of_the_special_one():
    """The mean, by the general function and by its own; also without data."""
    values = np.random.default_rng(4).gamma(2, size=80)
    own = mean_interval(list(values), 0.9, 4000, seed=1)
    general = statistic_interval(lambda chosen: float(values[chosen].mean()), 80, 0.9, 4000, seed=2)
    assert general.estimate == pytest.approx(own.estimate)
    assert general.low == pytest.approx(own.low, abs=0.03)
    assert general.high == pytest.approx(own.high, abs=0.03)
    constant = statistic_interval(lambda chosen: 1.0, 5, 0.9, 100, seed=1)
    assert constant.estimate == 1 and math.isnan(constant.low)
    assert math.isnan(statistic_interval(lambda chosen: 1.0, 0, 0.9, 100, seed=1).estimate)


def test_pooled_mean_weights_values_equally():
    rng = np.random.default_rng(5)
    counts = rng.integers(1, 4, size=60)
    values = [rng.normal(5, 2, size=count) for count in counts]
    found = pooled_mean_interval([v.sum() for v in values], list(counts), 0.95, 2000, seed=1)
    everything = np.concatenate(values)
    assert found.estimate == pytest.approx(everything.mean())
    error = everything.std() / math.sqrt(len(everything))
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.3)
    assert pooled_mean_interval([6.0, 3.0], [2, 1], 0.95, 100, seed=1)[:3] == (3, 3, 3)
