"""Variance over runs and questions: the analysis of variance, another estimator, simulated coverage, invariances."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.coverage import Condition, coverage
from eval.statistics.crossed import Cells, Variance, crossed_variance, ratio_influence
from eval.statistics.intervals import mean, win_rate


def grid(models: int, replicates: int, questions: int, seed: int = 1) -> pd.DataFrame:
    """A value for each model, replicate and question, with effects of runs and questions."""
    rng = np.random.default_rng(seed)
    shape = (models, replicates, questions)
    values = rng.normal(size=shape) + rng.normal(size=shape[:2])[..., None] + 2 * rng.normal(size=questions)
    names = [f"{name}{number}" for name, size in zip("mrq", shape, strict=True) for number in range(size)]
    index = pd.MultiIndex.from_product(
        [[name for name in names if name[0] == kind] for kind in "mrq"], names=["model", "replicate", "question_id"]
    )
    return pd.DataFrame({"value": values.ravel()}, index=index).reset_index()


def variance_of_mean(frame: pd.DataFrame) -> Variance:
    cells = Cells.of(frame)
    _, influence = ratio_influence(frame["value"].to_numpy(), np.ones(len(frame)), cells.benchmark)
    return crossed_variance(influence, cells)


@pytest.mark.parametrize("models", [1, 3])
def test_balanced_variance_is_the_analysis_of_variances(models):
    """Mean squares by statsmodels, nested in models: sum of (MS_r - MS_e) / (M^2 R Q), plus S / Q."""
    import statsmodels.api as sm
    from statsmodels.formula.api import ols

    frame = grid(models, 4, 7)
    between = 0.0
    for _, part in frame.groupby("model"):
        table = sm.stats.anova_lm(ols("value ~ C(replicate) + C(question_id)", part).fit())
        squares = table["sum_sq"] / table["df"]
        between += (squares["C(replicate)"] - squares["Residual"]) / (models**2 * 4 * 7)
    expected = between + frame.groupby("question_id")["value"].mean().var() / 7
    found = variance_of_mean(frame)
    assert found.value == pytest.approx(expected, rel=1e-10)
    assert (found.questions, found.over) == (7, "runs and questions")


def test_one_replicate_is_the_interval_over_questions():
    """Student's t of the questions' means."""
    from scipy import stats

    frame = grid(1, 1, 30)
    values = frame["value"]
    found = mean(values, frame, 0.9)
    reach = stats.t.ppf(0.95, 29) * values.std() / np.sqrt(30)
    assert (found.low, found.high) == pytest.approx((values.mean() - reach, values.mean() + reach))
    assert (found.n, found.over) == (30, "questions")


def test_missing_cells_agree_with_the_bootstrap_of_both():
    """Owen's pigeonhole bootstrap (2007) resamples replicates and questions independently; it is biased upwards by a
    cell's noise, which is small here.
    """
    frame = grid(1, 30, 40, seed=3).sample(frac=0.9, random_state=1)
    found = variance_of_mean(frame)
    table = frame.pivot(index="replicate", columns="question_id", values="value").to_numpy()
    rng = np.random.default_rng(1)
    drawn = [
        np.nanmean(table[rng.integers(0, 30, 30)][:, rng.integers(0, 40, 40)])
        for _ in range(2000)
    ]  # fmt: skip
    assert found.value == pytest.approx(np.var(drawn), rel=0.15)


def test_benchmarks_without_common_runs_are_independent():
    """Two benchmarks answered by one replicate each: the variance of a mean of independent means."""
    one, two = grid(1, 1, 30, seed=1), grid(1, 1, 50, seed=2)
    both = pd.concat([one.assign(benchmark="a"), two.assign(benchmark="b")])
    expected = sum(variance_of_mean(part).value for part in (one, two)) / 4
    assert variance_of_mean(both).value == pytest.approx(expected, rel=1e-12)


def test_variance_at_the_same_numbers_is_the_variance():
    """Of one model: several ones have degrees of freedom by model, as their runs may differ by different amounts."""
    found = variance_of_mean(grid(1, 4, 20))
    value, df = found.components.at(4, 20)
    assert (value, df) == pytest.approx((found.value, found.df))


def test_variance_at_other_numbers_is_what_they_give():
    """Components of a large grid predict the variance of small ones."""
    predicted, _ = variance_of_mean(grid(1, 60, 200)).components.at(3, 10)
    drawn = [grid(1, 3, 10, seed)["value"].mean() for seed in range(1500)]
    assert predicted == pytest.approx(np.var(drawn), rel=0.25)


CONDITIONS = [
    Condition("mean", 1, 3, 80, 0.02, 0.5),
    Condition("mean", 1, 6, 80, 0.04, 0.5, missing=0.1),
    Condition("mean", 3, 3, 80, 0.04, 0.5),
    Condition("skewed", 3, 3, 20, 0.02, 0.5),
    Condition("rate", 1, 12, 80, 0.04, 0.5),
    Condition("rate", 3, 3, 80, 0.04, 0.8),
    Condition("weighted", 3, 3, 80, 0.04, 0.5),
    Condition("rate", 3, 3, 80, 0.04, 0.5, benchmarks=3),
]


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda c: f"{c.kind}-{c.models}x{c.replicates}x{c.questions}")
def test_interval_covers_the_truth(condition):
    """400 draws: the share of a 95 % interval has a standard error of 0.011. The long version is `make coverage`."""
    held, _ = coverage(condition, 400)
    assert 0.92 <= held <= 0.99


def test_questions_alone_miss_the_truth_where_runs_differ():
    """Why this exists: the same grids, as if they were one replicate's answers."""
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(300):
        run, question = 0.04 * rng.normal(size=3), 0.12 * rng.normal(size=80)
        values = 0.5 + run[:, None] + question + 0.25 * rng.normal(size=(3, 80))
        frame = pd.DataFrame({"value": values.ravel(), "question_id": np.tile(np.arange(80), 3)})
        found = mean(frame["value"], frame, 0.95)
        held += found.low <= 0.5 <= found.high
    assert held / 300 < 0.88


def judged() -> pd.DataFrame:
    """Matches of three replicates on 20 questions."""
    frame = grid(2, 3, 20).rename(columns={"value": "points"})
    return frame.assign(points=(frame["points"] > 0).astype(float), weight=1.0)


def test_order_and_names_change_nothing():
    frame = judged()
    shuffled = frame.sample(frac=1, random_state=5)
    names = shuffled["replicate"].map({"r0": "z", "r1": "x", "r2": "y"})
    renamed = shuffled.assign(replicate=names, question_id=shuffled["question_id"] + "?")
    assert win_rate(renamed, 0.95) == pytest.approx(win_rate(frame, 0.95))


def test_swapped_sides_give_the_mirror_image():
    frame = judged()
    there, back = win_rate(frame, 0.95), win_rate(frame.assign(points=1 - frame["points"]), 0.95)
    assert (1 - back.high, 1 - back.low) == pytest.approx((there.low, there.high))


def test_a_judgment_that_stands_twice_gives_no_certainty():
    """Copies of all matches change the estimate and its limits by nothing."""
    frame = judged()
    once, twice = (mean(part["points"], part, 0.95) for part in (frame, pd.concat([frame, frame])))
    assert twice == pytest.approx(once)
