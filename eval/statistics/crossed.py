"""Variance over training runs and questions, which are crossed: every replicate answers every question.

A replicate is a fresh draw of everything in training. An estimate is close to a sum of influences of its observations
(a mean: (value - mean) / n; a ratio or a coefficient: linearised), so one variance serves all estimates. Models are
chosen, not drawn, and replicates are drawn for each model. docs/statistics.md derives the variance:

    V = sum over models of (A - C) + B, at least sum of C

A  from the sums within the model's replicates: runs and noise
B  from the sums within questions, over models and replicates: questions and noise
C  from what neither replicate nor question explains: noise

For balanced data this is the two-way analysis of variance without replication, (MS_r + MS_q - MS_e) / (R Q), nested in
models. With one replicate only B is left, and the interval is over questions alone.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

Over = Literal["runs and questions", "questions", ""]
SWEEPS, TOLERANCE = 100, 1e-12


@dataclass(frozen=True)
class Variance:
    """Variance of an estimate, its degrees of freedom (Satterthwaite), the number of questions, and what it is over."""

    value: float
    df: float
    questions: int
    over: Over


@dataclass(frozen=True)
class Cells:
    """Codes from 0 of each observation's model, replicate (within its model) and question, [n] each."""

    model: np.ndarray
    replicate: np.ndarray
    question: np.ndarray

    @classmethod
    def of(cls, frame: pd.DataFrame) -> "Cells":
        """Of the columns question_id and, where it has them, model and replicate."""
        columns = (frame.get("model"), frame.get("replicate"), frame["question_id"])
        codes = [
            np.zeros(len(frame), dtype=np.intp) if column is None else pd.factorize(column)[0] for column in columns
        ]
        return cls(*codes)


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
    """Variance of an estimate whose observations have these influences [n], which sum to 0.

    Satterthwaite's degrees of freedom are over all mean squares. A model with one replicate has no variance between its
    runs; `over` says so if no model has two.
    """
    codes = (cells.model, cells.replicate, cells.question)
    shape = tuple(int(code.max()) + 1 for code in codes)
    flat = np.ravel_multi_index(codes, shape)
    size = int(np.prod(shape))
    sums = np.bincount(flat, influence, size).reshape(shape)
    present = (np.bincount(flat, minlength=size) > 0).reshape(shape)
    asked = present.any(axis=(0, 1))
    questions = int(asked.sum())
    if questions < 2:
        return Variance(np.nan, np.nan, questions, "")
    by_question = sums.sum(axis=(0, 1))[asked]
    between_questions = questions * float(by_question.var(ddof=1))
    squares: list[tuple[float, int]] = [(between_questions, questions - 1)]
    noise: list[tuple[float, int]] = []
    for table, there in zip(sums, present, strict=True):
        kept = there.any(axis=1)
        count = int(kept.sum())
        if count < 2:
            continue
        rows, there = table[kept], there[kept]
        squares.append((count * float(rows.sum(axis=1).var(ddof=1)), count - 1))
        df = int(there.sum()) - count - int(there.any(axis=0).sum()) + 1
        if df > 0:
            noise.append((int(there.sum()) * float((_residuals(rows, there) ** 2).sum()) / df, df))
    error = sum(value for value, _ in noise)
    value = max(sum(value for value, _ in squares) - error, error)
    spread = sum(square**2 / df for square, df in squares + noise)
    satterthwaite = max(1.0, value**2 / spread) if spread else float(questions - 1)
    return Variance(value, satterthwaite, questions, "runs and questions" if len(squares) > 1 else "questions")


def ratio_influence(points: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """sum(points) / sum(weights), [n] each, and the influence of each observation on it."""
    total = weights.sum()
    estimate = float(points.sum() / total)
    return estimate, (points - estimate * weights) / total


def mean_weights(cells: Cells) -> np.ndarray:
    """Weights [n] with which each (model, replicate, question) counts once, however many observations it has."""
    keys = np.column_stack((cells.model, cells.replicate, cells.question))
    _, place, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    return np.asarray(1 / counts[place.ravel()])
