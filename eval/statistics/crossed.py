"""Variance over training runs and questions, which are crossed: every replicate answers every question.

A replicate is a fresh draw of everything in training. An estimate is close to a sum of influences of its observations
(a mean: (value - mean) / n; a ratio or a coefficient: linearised), so one variance serves all estimates. Models and
benchmarks are chosen, not drawn: replicates are drawn for each model, questions for each benchmark. docs/statistics.md
derives the variance:

    V = sum over models of A + sum over benchmarks of B - C, at least C

A  from the sums within the model's replicates: runs and noise
B  from the sums within the benchmark's questions, over models and replicates: questions and noise
C  from what neither replicate nor question explains: noise

For one model, one benchmark and balanced data this is the two-way analysis of variance without replication,
(MS_r + MS_q - MS_e) / (R Q). With one replicate only B is left, and the interval is over questions alone. Figures of
runs, without questions, leave only A.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

Over = Literal["runs and questions", "questions", "runs", ""]
OVER: dict[tuple[bool, bool], Over] = {
    (True, True): "runs and questions",
    (False, True): "questions",
    (True, False): "runs",
    (False, False): "",
}
SWEEPS, TOLERANCE = 100, 1e-12
Square = tuple[float, float]  # a mean square, scaled to its share of the variance, and its degrees of freedom


@dataclass(frozen=True)
class Components:
    """Shares of runs, questions and noise in the variance, and the numbers that it comes from."""

    runs: float
    questions: float
    noise: float
    models: int
    replicates: float  # of a model, on average
    asked: int  # questions of all benchmarks

    def at(self, replicates: float, asked: float, models: int | None = None) -> tuple[float, float]:
        """The variance, and its degrees of freedom, that these numbers would give; default: as many models."""
        models = self.models if models is None else models
        by_runs, by_questions = self.models * self.replicates / (models * replicates), self.asked / asked
        noise = self.noise * by_runs * by_questions
        runs, questions = self.runs * by_runs + noise, self.questions * by_questions + noise
        between = models * (replicates - 1)
        squares = [(runs, between), (questions, asked - 1), (noise, between * (asked - 1))]
        value = max(runs + questions - noise, noise)
        return value, satterthwaite(value, [(square, df) for square, df in squares if df > 0])


@dataclass(frozen=True)
class Variance:
    """Variance of an estimate, its degrees of freedom (Satterthwaite), the number of questions, and what it is over."""

    value: float
    df: float
    questions: int
    over: Over
    components: Components


@dataclass(frozen=True)
class Cells:
    """Codes from 0 of each observation's model, benchmark, replicate (within its model) and question, [n] each."""

    model: np.ndarray
    benchmark: np.ndarray
    replicate: np.ndarray
    question: np.ndarray

    @classmethod
    def of(cls, frame: pd.DataFrame) -> "Cells":
        """Of the columns question_id and, where it has them, model, benchmark and replicate."""
        columns = (frame.get("model"), frame.get("benchmark"), frame.get("replicate"), frame["question_id"])
        codes = [
            np.zeros(len(frame), dtype=np.intp) if column is None else pd.factorize(column)[0] for column in columns
        ]
        return cls(*codes)


def satterthwaite(value: float, squares: list[Square]) -> float:
    """Degrees of freedom of a variance that is a sum or difference of mean squares; at least 1."""
    spread = sum(square**2 / df for square, df in squares)
    return max(1.0, value**2 / spread) if spread else max((df for _, df in squares), default=1.0)


def _residuals(table: np.ndarray, present: np.ndarray) -> np.ndarray:
    """What replicates and questions do not explain additively in `table` [R, Q]; 0 where a cell is missing."""
    left = np.where(present, table, 0.0)
    for _ in range(SWEEPS):
        before = left
        for axis in (1, 0):
            counts = np.maximum(present.sum(axis=axis, keepdims=True), 1)
            left = np.where(present, left - left.sum(axis=axis, keepdims=True) / counts, 0.0)
        if np.abs(left - before).max() <= TOLERANCE * np.abs(table).max():
            break
    return left


def crossed_variance(influence: np.ndarray, cells: Cells) -> Variance:
    """Variance of an estimate whose observations have these influences [n], which sum to 0 in each benchmark.

    A model with one replicate has no variance between its runs; `over` says so if no model has two.
    """
    codes = (cells.model, cells.benchmark, cells.replicate, cells.question)
    shape = tuple(int(code.max()) + 1 for code in codes)
    flat = np.ravel_multi_index(codes, shape)
    size = int(np.prod(shape))
    sums = np.bincount(flat, influence, size).reshape(shape)
    present = (np.bincount(flat, minlength=size) > 0).reshape(shape)
    questions: list[Square] = []
    was_asked = np.asarray(present.any(axis=(0, 2)))
    for values, there in zip(sums.sum(axis=(0, 2)), was_asked, strict=True):
        if (count := int(there.sum())) > 1:
            questions.append((count * float(values[there].var(ddof=1)), count - 1))
    runs: list[Square] = []
    noise: list[Square] = []
    numbers = []
    for tables, filled in zip(sums, present, strict=True):
        kept = filled.any(axis=(0, 2))
        if (count := int(kept.sum())) < 2:
            continue
        numbers.append(count)
        runs.append((count * float(tables.sum(axis=(0, 2))[kept].var(ddof=1)), count - 1))
        for table, there in zip(tables[:, kept], filled[:, kept], strict=True):
            df = int(there.sum() - there.any(axis=1).sum() - there.any(axis=0).sum()) + 1
            if df > 0:
                noise.append((int(there.sum()) * float((_residuals(table, there) ** 2).sum()) / df, df))
    between, within, error = (sum((value for value, _ in squares), 0.0) for squares in (runs, questions, noise))
    value = max(between + within - error, error) if runs or questions else np.nan
    asked = int(was_asked.sum())
    components = Components(
        runs=max(between - error, 0.0),
        questions=max(within - error, 0.0),
        noise=error,
        models=max(len(runs), 1),
        replicates=float(np.mean(numbers)) if numbers else 1.0,
        asked=asked,
    )
    freedom = satterthwaite(value, [*runs, *questions, *noise])
    return Variance(value, freedom, asked, OVER[bool(runs), bool(questions)], components)


def ratio_influence(points: np.ndarray, weights: np.ndarray, benchmark: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean over benchmarks of sum(points) / sum(weights), [n] each, and the influence of each observation on it."""
    totals, sums = np.bincount(benchmark, weights), np.bincount(benchmark, points)
    ratios = sums / totals
    influence = (points - ratios[benchmark] * weights) / (totals[benchmark] * len(totals))
    return float(ratios.mean()), influence


def mean_weights(cells: Cells) -> np.ndarray:
    """Weights [n] with which each (model, benchmark, replicate, question) counts once, however often observed."""
    keys = np.column_stack((cells.model, cells.benchmark, cells.replicate, cells.question))
    _, place, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    return np.asarray(1 / counts[place.ravel()])
