"""The length-controlled win rate: known truths, and cases without an answer."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import special

from eval.statistics.length_control import difficulty, is_far, length_controlled


def matches(points, lengths, hard=None, weight=None) -> pd.DataFrame:
    n = len(points)
    return pd.DataFrame(
        {
            "question_id": [f"q{i}" for i in range(n)],
            "points": np.asarray(points, dtype=float),
            "weight": np.ones(n) if weight is None else weight,
            "lengths": list(lengths),
            "difficulty": np.full(n, np.nan) if hard is None else hard,
        }
    )


def drawn(rng, n: int, constant: float, slope: float, longer: float = 0.0, hard: float = 0.0) -> pd.DataFrame:
    """Wins drawn from the model itself; a's answers are `longer` by so many standard deviations on average."""
    difference = 100 * (rng.normal(size=n) + longer)
    x = np.tanh(difference / difference.std())
    difficult = rng.normal(size=n)
    wins = rng.random(n) < special.expit(constant + slope * x + hard * difficult)
    lengths = [(500 + int(d), 500) for d in difference]
    return matches(wins, lengths, difficult if hard else None)


def test_without_length_effect_it_equals_the_raw_rate():
    """Wins independent of length, exactly: each length occurs equally often with and without a win."""
    lengths = [(100, 50), (100, 50), (50, 100), (50, 100)] * 20
    found = length_controlled(matches([1, 0, 1, 0] * 20, lengths), 0.95)
    assert found.estimate == pytest.approx(0.5, abs=1e-9)
    thirds = [(100, 50)] * 30 + [(50, 100)] * 60 + [(70, 70)] * 9
    found = length_controlled(matches(([1, 0, 0] * 33), thirds), 0.95)
    assert found.estimate == pytest.approx(1 / 3, abs=1e-9)
    assert not found.far


def test_if_only_length_decides_it_is_one_half_and_far_off():
    rng = np.random.default_rng(0)
    frame = drawn(rng, 20_000, constant=0.0, slope=3.0, longer=1.0)
    raw = frame["points"].mean()
    found = length_controlled(frame, 0.95)
    assert raw > 0.75
    assert found.estimate == pytest.approx(0.5, abs=0.03)
    assert found.far


def test_swapped_sides_sum_to_one():
    frame = drawn(np.random.default_rng(1), 300, constant=0.4, slope=1.0, longer=0.5)
    swapped = frame.assign(points=1 - frame["points"], lengths=[(b, a) for a, b in frame["lengths"]])
    one, other = length_controlled(frame, 0.9), length_controlled(swapped, 0.9)
    assert one.estimate + other.estimate == pytest.approx(1, abs=1e-9)
    assert one.low + other.high == pytest.approx(1, abs=1e-9)


def test_equal_lengths_change_neither_rate_nor_error():
    frame = matches([1, 0.5, 0, 1, 1, 0.5, 1, 0] * 10, [(40, 40)] * 80, weight=np.tile([1.0, 3.0], 40))
    frame["points"] *= frame["weight"]
    found = length_controlled(frame, 0.95)
    rate = frame["points"].sum() / frame["weight"].sum()
    assert found.estimate == pytest.approx(rate, abs=1e-9)
    error = math.sqrt(((frame["points"] - rate * frame["weight"]) ** 2).sum()) / frame["weight"].sum()
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.03)


@pytest.mark.parametrize("hard", [0.0, 1.5])
def test_interval_covers_the_truth_at_its_level(hard):
    """400 trials of 120 questions, 90 %. With difficulties, the truth is the mean over possible questions."""
    rng = np.random.default_rng(2)
    constant, covered, trials = 0.5, 0, 400
    truth = special.expit(constant + hard * rng.normal(size=1_000_000)).mean()
    for _ in range(trials):
        found = length_controlled(drawn(rng, 120, constant, 1.0, 0.5, hard), 0.9)
        covered += found.low <= truth <= found.high
    assert abs(covered / trials - 0.9) < 0.05


def test_clustered_errors_equal_statsmodels():
    """Three matches per question without weights, the case that statsmodels supports."""
    import statsmodels.api as sm

    from eval.statistics.crossed import Cells
    from eval.statistics.logistic import fit

    rng = np.random.default_rng(3)
    frame = drawn(rng, 90, 0.2, 1.0)
    question = np.repeat(np.arange(30), 3)
    design = np.column_stack([np.ones(90), rng.normal(size=90)])
    ours = fit(frame["points"].to_numpy(), np.ones(90), design, Cells.of(frame.assign(question_id=question)))
    theirs = sm.GLM(frame["points"], design, family=sm.families.Binomial()).fit(
        cov_type="cluster", cov_kwds={"groups": question, "use_correction": False}
    )
    assert ours.coefficients == pytest.approx(np.asarray(theirs.params))
    by_question = ours.influence.reshape(30, 3, 2).sum(axis=1)
    assert by_question.T @ by_question == pytest.approx(np.asarray(theirs.cov_params()))


def test_difficulty_is_the_points_of_the_others():
    pool = pd.DataFrame(
        [("q1", 1, "one", 1.0, 1), ("q1", 1, "two", 0.0, 1), ("q1", 1, "three", 0.5, 1), ("q2", 1, "one", 3.0, 4)],
        columns=["question_id", "turn", "model", "points", "weight"],
    )
    found = difficulty(pool, "model")
    expected = [(0.5 + 0.5) / 3, (1.5 + 0.5) / 3, (1 + 0.5) / 3]
    assert list(found[:3]) == pytest.approx([special.logit(share) for share in expected])
    assert math.isnan(found[3]), "no other answers to this question"


def test_unidentified_effects_are_a_dash():
    """Always longer, equally or not; a win exactly if longer; no lengths; no data."""
    for frame in (
        matches([1, 0, 1, 1], [(90, 50)] * 4),
        matches([1, 0, 1, 1], [(51, 50), (60, 50), (70, 50), (80, 50)]),
        matches([1, 0] * 10, [(90, 50), (50, 90)] * 10),
        matches([1, 0, 1, 1], [None] * 4),
        matches([], []),
    ):
        found = length_controlled(frame, 0.95)
        assert all(math.isnan(value) for value in found[:3])
        assert not found.far


@pytest.mark.parametrize(
    ("raw", "controlled", "far"),
    [
        (0.5, 0.61, False),
        (0.5, 0.63, True),
        (0.5, 0.37, True),
        (0.9, 0.99, False),
        (0.05, 0.2, False),
        (0.05, 0.3, True),
        (0.8, 0.61, False),
        (0.8, 0.59, True),
    ],
)
def test_far_off_threshold(raw, controlled, far):
    assert is_far(raw, controlled) == far
