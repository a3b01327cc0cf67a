"""What a condition's figure is computed from: one row for each match, question or run.

Columns: model, benchmark, replicate, question_id, points and weight. Runs have no benchmark and no question ("").
"""

from collections.abc import Iterable

import pandas as pd

from eval.claims.frontier import differences_at_equal_kl
from eval.grid.aggregate import LAST_SHARE, QUESTION, RUN, differences
from eval.grid.claims import Condition
from eval.grid.results import GridResults
from eval.statistics.intervals import Estimated, contrast_estimate, mean_estimate, rate_estimate
from eval.statistics.runs import DifferenceOfShares, SpreadRatio

REPLICATE = ["model", "replicate"]
COLLAPSED = "collapsed"
LEAST_ENTROPY, LEAST_ENDED = 0.1, 0.5
MIDPOINT = 0.5


def observations(results: GridResults, comparison: str | None, condition: Condition) -> pd.DataFrame:
    """The rows of a condition; none if the grid did not measure it."""
    if comparison is not None and comparison not in results.grid.comparisons:
        return pd.DataFrame()
    if condition.of == "soups":
        return soup_gains(results.soups, condition.measure)
    assert comparison is not None, "checked with the config"
    if condition.of == "judgments":
        judgments = results.judgments
        return judgments[(judgments["comparison"] == comparison) & (judgments["weight"] > 0)]
    sides = results.grid.comparisons[comparison]
    if condition.of == "frontier":
        equal = differences_at_equal_kl(results.frontier, results.grid, sides, condition.measure)
        return as_points(equal.rename(columns={"mean": "difference"}))
    if condition.of == "scores":
        return as_points(differences(results.scores, condition.measure, sides, QUESTION))
    training = collapsed(results.training) if condition.measure == COLLAPSED else results.training
    return as_points(differences(training, condition.measure, sides, REPLICATE))


def as_points(found: pd.DataFrame) -> pd.DataFrame:
    """Differences as points of equal weight."""
    return without_question(found.rename(columns={"difference": "points"})).assign(weight=1.0) if len(found) else found


def without_question(runs: pd.DataFrame) -> pd.DataFrame:
    """Rows with the columns benchmark and question_id, empty where they are missing."""
    return runs.assign(**{name: "" for name in ("benchmark", "question_id") if name not in runs})


def collapsed(training: pd.DataFrame) -> pd.DataFrame:
    """Whether each run collapsed: in the last quarter of its steps the entropy is below a tenth of the first step's,
    fewer than half of the responses end, or the learned reward is below the first step's.
    """
    rows = []
    for key, steps in training.groupby(RUN, sort=False):
        first, last = steps.iloc[0], steps.tail(max(1, round(LAST_SHARE * len(steps))))
        fell = last["reward"].mean() < first["reward"]
        stuck = last["entropy"].mean() < LEAST_ENTROPY * first["entropy"] or last["eos_share"].mean() < LEAST_ENDED
        rows.append({**dict(zip(RUN, key, strict=True)), COLLAPSED: float(fell or stuck)})
    return pd.DataFrame(rows)


def soup_gains(soups: pd.DataFrame, measure: str) -> pd.DataFrame:
    """The soup of equal parts less the mean of its two ingredients, of each model and replicate."""
    if measure not in soups or soups[measure].isna().all():
        return pd.DataFrame()
    by_alpha = soups.dropna(subset="alpha").pivot_table(index=REPLICATE, columns="alpha", values=measure, sort=False)
    if not {0.0, MIDPOINT, 1.0} <= set(by_alpha.columns):
        return pd.DataFrame()
    gains = by_alpha[MIDPOINT] - (by_alpha[0.0] + by_alpha[1.0]) / 2
    return without_question(gains.rename("points").reset_index()).assign(weight=1.0)


def of_benchmarks(rows: pd.DataFrame, names: Iterable[str]) -> pd.DataFrame:
    """The rows of these benchmarks."""
    return rows[rows["benchmark"].isin(list(names))]


def estimate(rows: pd.DataFrame, condition: Condition) -> Estimated | None:
    """The condition's figure; None if nothing was measured."""
    compared = rows
    if condition.benchmarks is not None and not rows.empty:
        compared = of_benchmarks(rows, condition.benchmarks)
    if compared.empty:
        return None
    if condition.statistic == "spread":
        means = compared.groupby([*REPLICATE, "benchmark"], sort=False)[["a", "b"]].mean()
        return SpreadRatio.of(means.groupby(REPLICATE, sort=False).mean().reset_index())
    if condition.measure == COLLAPSED:
        return DifferenceOfShares(compared["a"].sum(), compared["b"].sum(), len(compared))
    if condition.less is not None:
        other = of_benchmarks(rows, condition.less)
        return None if other.empty else contrast_estimate(compared, other)
    if condition.of == "judgments":
        return rate_estimate(compared)
    return mean_estimate(compared["points"], compared)
