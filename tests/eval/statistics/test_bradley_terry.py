"""Bradley-Terry and its logistic regression: identities, known answers, and cases without an answer."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, special, stats

from eval.statistics.bradley_terry import scores
from eval.statistics.crossed import Cells
from eval.statistics.logistic import fit


def matches(rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["question_id", "a", "b", "points", "weight"])


def against_one_baseline(seed: int, chances: dict[str, float], questions: int = 80) -> pd.DataFrame:
    """Two games per question and model, a third of them strong."""
    rng = np.random.default_rng(seed)
    rows = []
    for model, chance in chances.items():
        for question in range(questions):
            won, weight = rng.random(2) < chance, np.where(rng.random(2) < 1 / 3, 3, 1)
            rows.append((question, model, "baseline", float((won * weight).sum()), float(weight.sum())))
    return matches(rows)


def test_one_baseline_gives_the_weighted_win_rate_and_the_error_of_a_ratio():
    frame = against_one_baseline(0, {"weak": 0.2, "even": 0.5, "strong": 0.9})
    found = scores(frame, [(model, "baseline") for model in ("weak", "even", "strong")], 0.95)
    for (model, _), score in found.items():
        part = frame[frame["a"] == model]
        rate = part["points"].sum() / part["weight"].sum()
        assert score.estimate == pytest.approx(rate, abs=1e-9)
        # The ratio's own error over questions, by hand, taken to the logit's scale.
        error = math.sqrt(((part["points"] - rate * part["weight"]) ** 2).sum()) / part["weight"].sum()
        reach = (special.logit(score.high) - special.logit(score.low)) / 2 / stats.t.ppf(0.975, 80 - 1)
        assert reach == pytest.approx(error / (rate * (1 - rate)), rel=0.02)


def test_scores_maximise_the_likelihood_by_another_optimiser():
    rng = np.random.default_rng(1)
    names, strengths = list("abcd"), np.array([0.0, 0.5, 1.2, -0.4])
    rows = []
    for question in range(300):
        i, j = rng.choice(4, size=2, replace=False)
        weight = float(rng.choice([1, 3]))
        rows.append(
            (question, names[i], names[j], weight * (rng.random() < special.expit(strengths[i] - strengths[j])), weight)
        )
    frame = matches(rows)

    def loss(free):
        strength = dict(zip(names, [0, *free], strict=True))
        d = frame["a"].map(strength) - frame["b"].map(strength)
        p, w = frame["points"], frame["weight"]
        return -(p * special.log_expit(d) + (w - p) * special.log_expit(-d)).sum()

    expected = optimize.minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-8}).x
    pairs = [("b", "a"), ("c", "a"), ("d", "a"), ("c", "d")]
    found = scores(frame, pairs, 0.95)
    for (a, b), score in found.items():
        strength = dict(zip(names, [0, *expected], strict=True))
        assert score.estimate == pytest.approx(special.expit(strength[a] - strength[b]), abs=1e-5)
        assert score.low < score.estimate < score.high


def test_model_that_always_wins_scores_1_and_changes_no_other():
    frame = against_one_baseline(2, {"even": 0.5})
    alone = scores(frame, [("even", "baseline")], 0.95)["even", "baseline"]
    champion = matches([(question, "champion", "baseline", 2.0, 2.0) for question in range(80)])
    both = scores(pd.concat([frame, champion]), [("even", "baseline"), ("champion", "baseline")], 0.95)
    assert both["champion", "baseline"].estimate == pytest.approx(1, abs=1e-6)
    assert math.isnan(both["champion", "baseline"].low)
    assert both["even", "baseline"].estimate == pytest.approx(alone.estimate, abs=1e-9)
    assert both["even", "baseline"].low == pytest.approx(alone.low, abs=2e-3)


def test_unconnected_groups_are_independent():
    rows = [
        (q, a, b, float((q + k) % 3 == 0), 1.0) for k, (a, b) in enumerate([("a", "b"), ("c", "d")]) for q in range(30)
    ]
    found = scores(matches(rows), [("a", "b"), ("c", "d")], 0.95)
    assert [score.estimate for score in found.values()] == [pytest.approx(1 / 3)] * 2


def test_one_question_has_a_score_and_no_interval():
    [score] = scores(matches([("q", "a", "b", 1.0, 4.0)]), [("a", "b")], 0.95).values()
    assert score.estimate == pytest.approx(0.25)
    assert math.isnan(score.low) and math.isnan(score.high)


def test_interval_covers_the_truth_at_its_level():
    """Clustered rows: 400 trials, 90 %, two coefficients."""
    rng = np.random.default_rng(3)
    covered, trials, questions, rows_each = 0, 400, 60, 4
    x = np.tile([0.0, 1.0], questions * rows_each // 2)
    names = np.repeat(np.arange(questions), rows_each)
    for _ in range(trials):
        share = np.clip(0.35 + 0.3 * x + np.repeat(rng.uniform(-0.3, 0.3, questions), rows_each), 0, 1)
        found = fit(
            (rng.random(len(x)) < share).astype(float),
            np.ones(len(x)),
            np.column_stack([np.ones_like(x), x]),
            Cells.of(pd.DataFrame({"question_id": names})),
        )
        _, low, high, _ = found.share(np.ones((1, 2)), np.ones(1), 0.9)
        covered += low <= 0.65 <= high
    assert abs(covered / trials - 0.9) < 0.05
