"""Intervals of rates and means, and of statistics by the bootstrap: known limits and cases that say nothing."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from eval.statistics.bootstrap import statistic_interval
from eval.statistics.intervals import Interval, mean, win_rate


def rate(points: list[float], weights: list[float] | None = None, confidence: float = 0.95) -> Interval:
    """The win rate of one match for each question."""
    frame = pd.DataFrame({"points": points, "weight": weights or [1.0] * len(points)})
    return win_rate(frame.assign(question_id=range(len(points))), confidence)


def average(values: list[float], questions: list[int] | None = None, pooled: bool = False) -> Interval:
    frame = pd.DataFrame({"value": np.array(values, dtype=float)})
    frame["question_id"] = questions or range(len(values))
    return mean(frame["value"], frame, 0.95, pooled)


def test_interval_covers_the_truth_at_its_level():
    """Clustered win rates: questions differ in difficulty and have six judgments each. 400 trials, 90 %."""
    rng = np.random.default_rng(0)
    covered = naive = 0
    trials, n, judgments = 400, 60, 6
    questions = np.repeat(np.arange(n), judgments)
    for _ in range(trials):
        won = rng.random(n * judgments) < np.repeat(rng.beta(1.5, 1.0, size=n), judgments)
        frame = pd.DataFrame({"points": won.astype(float), "weight": 1.0, "question_id": questions})
        found = win_rate(frame, 0.9)
        covered += found.low <= 0.6 <= found.high
        single = stats.binomtest(int(won.sum()), n * judgments).proportion_ci(0.9, method="wilson")
        naive += single.low <= 0.6 <= single.high
    assert abs(covered / trials - 0.9) < 0.05
    assert naive / trials < 0.8, "treating judgments as independent would undercover"


def test_independent_games_give_clopper_and_pearsons_limits():
    """The effective size is then the number of games, but for the degrees of freedom."""
    won = np.random.default_rng(1).random(2000) < 0.3
    found = rate(list(won.astype(float)))
    exact = stats.binomtest(int(won.sum()), 2000).proportion_ci(0.95, method="exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=1e-4)


def test_weights_count():
    found = rate([6, 0, 1], [6, 2, 2])
    assert found.estimate == pytest.approx(0.7)
    assert (found.n, found.over) == (3, "questions")


@pytest.mark.parametrize(("points", "low", "high"), [(1.0, 0.8235, 1.0), (0.0, 0.0, 0.1765), (0.5, 0.2663, 0.7337)])
def test_unanimous_questions_are_not_certainty(points, low, high):
    """19 of 19: Clopper and Pearson's exact limits for 19 questions; for ties only, those of half as many wins."""
    found = rate([points] * 19)
    assert (found.estimate, found.n) == (points, 19)
    assert (found.low, found.high) == pytest.approx((low, high), abs=2e-3)


def test_no_questions_give_nan():
    found = rate([])
    assert found.n == 0 and math.isnan(found.estimate)
    assert average([]).n == 0


@pytest.mark.parametrize("found", [average([2.0]), average([1.0, 3.0], [7, 7]), rate([1.0])])
def test_one_question_has_no_interval(found):
    """It does not show how much questions vary."""
    assert found.n == 1
    assert math.isnan(found.low) and math.isnan(found.high)


@pytest.mark.parametrize("points", [[1], [1] * 3, [0, 2, 2], [2] * 5, [1] * 4, [0, 1, 2, 2, 1, 0, 2], [0] * 7])
def test_swapping_the_sides_gives_the_mirror_image(points):
    """a against b and b against a, also with an odd number of ties."""
    weights = [2.0] * len(points)
    there, back = rate(points, weights), rate([2 - p for p in points], weights)
    assert back.estimate == pytest.approx(1 - there.estimate)
    assert (1 - back.high, 1 - back.low) == pytest.approx((there.low, there.high), nan_ok=True)


def test_limits_of_a_rate_stay_between_0_and_1():
    """Student's limits would not."""
    points = [1.0] * 22 + [0.5, 0.0]
    found = rate(points)
    reach = stats.t.ppf(0.975, 23) * np.std(points, ddof=1) / math.sqrt(24)
    assert found.estimate + reach > 1 > found.high > found.estimate > found.low > 0


def test_mean_counts_questions_and_pooled_mean_counts_values():
    values, questions = [1.0, 2.0, 3.0, 10.0], [1, 1, 1, 2]
    assert average(values, questions).estimate == pytest.approx(6)
    assert average(values, questions, pooled=True).estimate == pytest.approx(4)


def test_statistic_has_the_limits_of_a_mean():
    """The bootstrap of a mean against Student's interval; also without data."""
    values = np.random.default_rng(4).gamma(9, size=80)
    own = average(list(values))
    general = statistic_interval(lambda chosen: float(values[chosen].mean()), 80, 0.95, 4000, seed=2)
    assert general.estimate == pytest.approx(own.estimate)
    assert (general.low, general.high) == pytest.approx((own.low, own.high), abs=0.1)
    constant = statistic_interval(lambda chosen: 1.0, 5, 0.9, 100, seed=1)
    assert constant.estimate == 1 and math.isnan(constant.low)
    assert math.isnan(statistic_interval(lambda chosen: 1.0, 0, 0.9, 100, seed=1).estimate)
