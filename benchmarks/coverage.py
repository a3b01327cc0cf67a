"""Share of intervals that hold the truth, by simulation, in the conditions of docs/statistics.md.

python benchmarks/coverage.py            all conditions, as Markdown tables (15 minutes on two cores)
python benchmarks/coverage.py --draws 50 a quick look
"""

import argparse
import itertools
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy import stats

from eval.statistics.crossed import Cells, crossed_variance, mean_weights, ratio_influence
from eval.statistics.intervals import GAMES, Interval, rate_interval, t_interval
from eval.tables.formats import markdown

CONFIDENCE = 0.95
BETWEEN_QUESTIONS = 0.12  # sd of a question's effect, in points of one match
NOISE = 0.25  # sd within a cell


@dataclass(frozen=True)
class Condition:
    """What is simulated: win rates (`rate`), weighted ones (`weighted`) or means (`mean`, `skewed`)."""

    kind: str
    models: int
    replicates: int
    questions: int
    between_runs: float  # sd, in points of one match
    truth: float
    missing: float = 0.0  # share of matches without a verdict
    benchmarks: int = 1  # a run differs from others in half of its effect alike on all benchmarks


def design(condition: Condition, rng: np.random.Generator) -> Cells:
    """Every replicate of every model on every question of every benchmark, without the missing matches."""
    shape = (condition.models, condition.benchmarks, condition.replicates, condition.questions)
    codes = np.indices(shape).reshape(4, -1)
    kept = rng.random(codes.shape[1]) >= condition.missing
    return Cells(*codes[:, kept])


def effects(condition: Condition, cells: Cells, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal effects of each match's run and question."""
    everywhere = rng.normal(size=(condition.models, 1, condition.replicates))
    runs = rng.normal(size=(condition.models, condition.benchmarks, condition.replicates))
    if condition.benchmarks > 1:
        runs = np.sqrt(0.5) * (everywhere + runs)
    questions = rng.normal(size=(condition.benchmarks, condition.questions))
    return runs[cells.model, cells.benchmark, cells.replicate], questions[cells.benchmark, cells.question]


def interval(condition: Condition, rng: np.random.Generator) -> Interval:
    """The interval of one simulated grid."""
    cells = design(condition, rng)
    run, question = effects(condition, cells, rng)
    n = len(run)
    if condition.kind in ("mean", "skewed"):
        noise = rng.normal(size=n) if condition.kind == "mean" else rng.exponential(size=n) - 1
        values = condition.truth + condition.between_runs * run + BETWEEN_QUESTIONS * question + NOISE * noise
        weights = mean_weights(cells)
        estimate, influence = ratio_influence(weights * values, weights, cells.benchmark)
        return t_interval(estimate, crossed_variance(influence, cells), CONFIDENCE)
    # Probit: the mean of Phi(m + s x) over a standard normal x is Phi(m / sqrt(1 + s^2)), so the truth is exact.
    slope = 1 / stats.norm.pdf(stats.norm.ppf(condition.truth))
    runs, questions = slope * condition.between_runs, slope * BETWEEN_QUESTIONS
    middle = stats.norm.ppf(condition.truth) * np.sqrt(1 + runs**2 + questions**2)
    chance = stats.norm.cdf(middle + runs * run + questions * question)
    weights = rng.choice([1.0, 3.0], size=n) if condition.kind == "weighted" else np.ones(n)
    points = weights * rng.binomial(2, chance) / 2  # two games; one won is a tie
    estimate, influence = ratio_influence(points, weights, cells.benchmark)
    return rate_interval(estimate, crossed_variance(influence, cells), GAMES * n, CONFIDENCE)


def coverage(condition: Condition, draws: int, seed: int = 1) -> tuple[float, float]:
    """Share of intervals that hold the truth, and the median half width."""
    rng = np.random.default_rng(seed)
    found = [interval(condition, rng) for _ in range(draws)]
    held = [one.low <= condition.truth <= one.high for one in found]
    return float(np.mean(held)), float(np.median([(one.high - one.low) / 2 for one in found]))


def by_runs() -> Iterator[Condition]:
    """Means and rates of one half, by how much runs differ."""
    for kind, models, replicates, questions, spread in itertools.product(
        ("mean", "rate"), (1, 3), (1, 2, 3, 6, 12), (20, 80, 500), (0.0, 0.02, 0.04)
    ):
        if replicates > 1 or spread == 0:
            yield Condition(kind, models, replicates, questions, spread, 0.5)


def by_kind() -> Iterator[Condition]:
    """Rates near 1, weights, skewed noise, missing matches."""
    kinds = (("rate", 0.8, 0.0), ("rate", 0.95, 0.0), ("rate", 0.5, 0.1), ("weighted", 0.5, 0.0))
    for kind, truth, missing in (*kinds, ("skewed", 0.5, 0.0), ("mean", 0.7, 0.1)):
        for models, replicates, questions in itertools.product((1, 3), (2, 3, 6), (20, 80)):
            yield Condition(kind, models, replicates, questions, 0.02, truth, missing)


def table(frame: pd.DataFrame, rows: list[str], columns: list[str], figure: str) -> pd.DataFrame:
    """A figure of each condition: a row for each value of `rows`, and for each value of `columns` one number."""
    wide = frame.pivot(index=rows, columns=columns, values=figure).map(lambda value: f"{value:.3f}".removeprefix("0"))
    joined = wide.replace("nan", "").T.groupby(level=0).agg(lambda texts: " ".join(texts).strip()).T
    joined.columns = [f"{value} {columns[0]}" for value in joined.columns]
    return joined.reset_index()


def measured(task: tuple[Condition, int]) -> tuple[float, float]:
    """`coverage` of a condition, for a worker process."""
    return coverage(*task)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--draws", type=int, default=4000, help="simulated grids per condition (default 4000)")
    arguments = parser.parse_args()
    first, second = list(by_runs()), list(by_kind())
    with ProcessPoolExecutor() as pool:
        found = list(pool.map(measured, [(one, arguments.draws) for one in (*first, *second)]))
    frame = pd.DataFrame(map(asdict, (*first, *second))).join(pd.DataFrame(found, columns=["coverage", "half"]))
    runs, kinds = frame[: len(first)], frame[len(first) :]
    rows = ["kind", "models", "replicates"]
    for figure, name in (("coverage", "Coverage"), ("half", "Median half width")):
        note = f"{name} at a standard deviation between runs of 0, 0.02 and 0.04."
        print(markdown(table(runs, rows, ["questions", "between_runs"], figure), [note]))
    note = "Coverage with 20 and 80 questions, at a standard deviation between runs of 0.02."
    rows = ["kind", "truth", "missing", "models"]
    print(markdown(table(kinds, rows, ["replicates", "questions"], "coverage"), [note]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
