"""Verdicts: p-values and intervals agree, conjunctions, Holm, how many replicates settle a claim."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from eval.claims.settle import replicates_to_find
from eval.claims.verdicts import Found, found, holm, judged
from eval.grid.claims import Claim, Condition
from eval.statistics.crossed import Components
from eval.statistics.intervals import Interval, mean_estimate, p_value, rate_estimate
from eval.statistics.runs import DifferenceOfShares, SpreadRatio

ABOVE = Condition(figure="x", of="scores", measure="reward", above=0)


def runs(effect: float, seed: int, replicates: int = 4, questions: int = 12) -> pd.DataFrame:
    """Differences with effects of runs and questions."""
    rng = np.random.default_rng(seed)
    values = effect + 0.3 * rng.normal(size=(replicates, 1)) + rng.normal(size=questions)
    values = values + rng.normal(size=(replicates, questions))
    cells = np.indices(values.shape).reshape(2, -1)
    return pd.DataFrame({"replicate": cells[0], "question_id": cells[1], "points": values.ravel(), "weight": 1.0})


def test_p_value_of_a_mean_is_students():
    frame = runs(0.5, seed=1)
    estimate = mean_estimate(frame["points"], frame)
    t = abs(estimate.value) / np.sqrt(estimate.variance.value)
    assert p_value(estimate.interval, 0) == pytest.approx(2 * stats.t.sf(t, estimate.variance.df), rel=1e-4)


@pytest.mark.parametrize("threshold", [0.3, 0.4, 0.9])
def test_p_value_of_a_rate_is_where_its_interval_ends(threshold):
    frame = runs(0.2, seed=2)
    estimate = rate_estimate(frame.assign(points=(frame["points"] > 0).astype(float)))
    p = p_value(estimate.interval, threshold)
    interval = estimate.interval(1 - p)
    assert p < 1
    assert threshold == pytest.approx(interval.low if interval.estimate > threshold else interval.high, abs=1e-5)


def test_claim_without_effect_is_decided_in_five_of_a_hundred_draws():
    """A/A: new runs and new questions each time, and nothing between the methods."""
    decided = 0
    for seed in range(400):
        frame = runs(0.0, seed)
        one = found(mean_estimate(frame["points"], frame), ABOVE, 0.95)
        decided += judged([one], 0.95).verdict != "undecided"
    assert 2 <= decided <= 34  # 20 expected; the standard deviation is 4.4


def one(p: float, claimed: bool) -> Found:
    return Found(Interval(0.0, 0.0, 0.0, 9, "runs"), claimed, p, (None, None))


@pytest.mark.parametrize(
    ("conditions", "verdict", "p"),
    [
        ([one(0.01, True), one(0.04, True)], "supported", 0.04),
        ([one(0.01, True), one(0.2, True)], "undecided", 0.2),
        ([one(0.01, True), one(0.02, False)], "contradicted", 0.04),
        ([one(0.01, True), one(0.03, False)], "undecided", 0.06),
        ([one(0.01, True), None], "not measured", np.nan),
        ([one(0.01, True), one(np.nan, True)], "undecided", np.nan),
    ],
)
def test_each_condition_of_a_claim_has_to_hold(conditions, verdict, p):
    found = judged(conditions, 0.95)
    assert (found.verdict, found.p) == (verdict, pytest.approx(p, nan_ok=True))


def test_holm_counts_only_what_was_tested():
    """Smallest p times 3, the next times 2, never decreasing."""
    assert holm([0.04, np.nan, 0.01, 0.03]) == pytest.approx([0.06, np.nan, 0.03, 0.06], nan_ok=True)


def test_one_replicate_decides_nothing():
    frame = runs(5.0, seed=3, replicates=1)
    one = found(mean_estimate(frame["points"], frame), ABOVE, 0.95)
    assert one is not None
    assert one.interval.low > 0
    assert judged([one], 0.95).verdict == "undecided"


def test_replicates_that_settle_a_claim_find_the_effect():
    """By simulation, in about 80 % of draws."""
    components = Components(runs=0.03, questions=0.01, noise=0.01, models=1, replicates=3, asked=12)
    needed = replicates_to_find(0.4, components, 0.95, components.asked)
    assert needed is not None
    rng = np.random.default_rng(1)
    sd_run, sd_question, sd_noise = np.sqrt([0.03 * 3, 0.01 * 12, 0.01 * 36])
    supported = 0
    for _ in range(300):
        values = 0.4 + sd_run * rng.normal(size=(needed, 1)) + sd_question * rng.normal(size=12)
        values = values + sd_noise * rng.normal(size=(needed, 12))
        cells = np.indices(values.shape).reshape(2, -1)
        frame = pd.DataFrame({"replicate": cells[0], "question_id": cells[1], "points": values.ravel()})
        supported += mean_estimate(frame["points"], frame).interval(0.95).low > 0
    assert 0.7 < supported / 300 < 0.9


def test_more_replicates_do_not_settle_what_questions_leave_open():
    components = Components(runs=0.01, questions=0.04, noise=0.0, models=1, replicates=3, asked=12)
    assert replicates_to_find(0.2, components, 0.95, components.asked) is None
    assert replicates_to_find(0.2, components, 0.95, 16 * components.asked) is not None


def test_spread_covers_the_ratio_of_correlated_runs():
    """Three models of four replicates; a spreads 1.5 times as much as b."""
    rng = np.random.default_rng(4)
    held = 0
    for _ in range(400):
        shared, own_a, own_b = rng.normal(size=(3, 12))
        a, b = 1.5 * (0.8 * shared + 0.6 * own_a), 0.8 * shared + 0.6 * own_b
        models = np.repeat(["x", "y", "z"], 4)
        found = SpreadRatio.of(pd.DataFrame({"model": models, "a": a + 9, "b": b})).interval(0.95)
        held += found.low <= 1.5 <= found.high
    assert 0.92 <= held / 400 <= 0.98


def test_spread_of_swapped_methods_is_the_inverse():
    frame = pd.DataFrame({"model": ["x"] * 5, "a": [1, 3, 2, 5, 9.0], "b": [2, 3, 1, 4, 6.0]})
    there, back = (SpreadRatio.of(f).interval(0.9) for f in (frame, frame.rename(columns={"a": "b", "b": "a"})))
    assert (back.estimate, back.low, back.high) == pytest.approx((1 / there.estimate, 1 / there.high, 1 / there.low))


def test_no_collapse_in_few_runs_leaves_room():
    """Newcombe (1998), from Wilson's limits of 0 of n: upper = z^2 / (n + z^2)."""
    interval = DifferenceOfShares(0, 0, 9).interval(0.95)
    wilson = stats.norm.ppf(0.975) ** 2 / (9 + stats.norm.ppf(0.975) ** 2)
    assert (interval.low, interval.high) == pytest.approx((-wilson, wilson))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"above": 0, "below": 1}, "either above or below"),
        ({}, "either above or below"),
        ({"above": 0, "of": "training", "statistic": "spread"}, "statistic spread is of scores"),
        ({"above": 0, "less": ["x"]}, "less needs benchmarks"),
    ],
)
def test_wrong_condition_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Condition.model_validate({"figure": "x", "of": "scores", "measure": "reward", **change})


def test_claim_without_a_comparison_is_refused():
    with pytest.raises(ValueError, match="name a comparison"):
        Claim(says="x", family="ours", conditions=[ABOVE])
