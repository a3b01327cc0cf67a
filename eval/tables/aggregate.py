"""Aggregate results into long-form data frames: each row has an estimate, its limits and n."""

import argparse
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Self

import numpy as np
import pandas as pd

from eval.benchmarks.base import MISSING_REASONS, POINTS, missing_verdicts
from eval.statistics.intervals import Interval, mean_interval, pooled_mean_interval, ratio_interval, statistic_interval
from eval.statistics.length_control import difficulty, length_controlled
from eval.tables.grid import ALL_MODELS, Grid
from salsa.config.sections import Tables
from salsa.runtime.errors import UserError
from salsa.runtime.seeds import derive_seed

Row = dict[str, Any]
LAST_SHARE = 0.25
RUN = ["model", "method", "replicate", "policy"]
GRADE_COLUMNS = ["model", "benchmark", "method", "turn", "rating", "low", "high", "n", "coverage", "enough_coverage"]
GRADE_COLUMNS += ["imitating", *MISSING_REASONS]
MEASURES = ("reward", "gold", "kl_sft", "kl_reference", "tokens", "ended", "distinct_1", "distinct_2")


class Resampling:
    """Computes intervals. Each has its own seed, derived from the names of the row, so rows do not depend on others."""

    def __init__(self, confidence: float, resamples: int, seed: int):
        self.confidence, self.resamples, self.seed = confidence, resamples, seed

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add --confidence, --resamples and --seed."""
        fields = Tables.model_fields
        parser.add_argument("--confidence", type=float, default=fields["confidence"].default)
        parser.add_argument("--resamples", type=int, default=fields["resamples"].default, help="bootstrap resamples")
        parser.add_argument("--seed", type=int, default=1, help="seed of the bootstrap")

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Self:
        """From the arguments that `add_arguments` adds."""
        if not 0 < arguments.confidence < 1 or arguments.resamples < 1:
            raise UserError("--confidence has to be between 0 and 1, --resamples at least 1")
        return cls(arguments.confidence, arguments.resamples, arguments.seed)

    def ratio(self, frame: pd.DataFrame, *names: str) -> Interval:
        """Adjusted win rate of judgments; points and weights are summed by question."""
        sums = frame.groupby("question_id", sort=False)[["points", "weight"]].sum()
        seed = derive_seed(self.seed, "tables", *names)
        return ratio_interval(list(sums["points"]), list(sums["weight"]), self.confidence, self.resamples, seed)

    def pooled_mean(self, values: "pd.Series[Any]", questions: "pd.Series[Any]", *names: str) -> Interval:
        """Mean of all values; the values of a question are resampled together."""
        sums = values.groupby(questions, sort=False).agg(["sum", "count"])
        seed = derive_seed(self.seed, "tables", *names)
        return pooled_mean_interval(list(sums["sum"]), list(sums["count"]), self.confidence, self.resamples, seed)

    def statistic(self, of: Callable[[np.ndarray], float], questions: int, *names: str) -> Interval:
        """Any statistic of question indices; a resample contains repeated indices."""
        seed = derive_seed(self.seed, "tables", *names)
        return statistic_interval(of, questions, self.confidence, self.resamples, seed)

    def mean(self, values: "pd.Series[Any]", questions: "pd.Series[Any]", *names: str) -> Interval:
        """Mean over questions of each question's mean."""
        per_question = values.groupby(questions, sort=False).mean().dropna()
        return mean_interval(
            list(per_question), self.confidence, self.resamples, derive_seed(self.seed, "tables", *names)
        )


def _seed_range(frame: pd.DataFrame) -> tuple[float, float, int]:
    """Smallest and largest win rate of a single pair of policies, and the number of pairs."""
    sums = frame.groupby(["a", "b"], sort=False)[["points", "weight"]].sum()
    rates = sums["points"] / sums["weight"]
    return float(rates.min()), float(rates.max()), len(rates)


def win_rates(judgments: pd.DataFrame, grid: Grid, draw: Resampling) -> pd.DataFrame:
    """Adjusted win rates per model and benchmark, and per benchmark over all models.

    Over all models, the judgments of a question by all models are resampled together.
    """
    rows = []
    for comparison, sides in grid.comparisons.items():
        compared = judgments[(judgments["comparison"] == comparison) & (judgments["weight"] > 0)]
        difficulties = [difficulty(compared[compared["benchmark"] == name], "model") for name in grid.benchmarks]
        compared = compared.assign(difficulty=pd.concat(difficulties))
        for model in [*grid.models, *([ALL_MODELS] if len(grid.models) > 1 else [])]:
            for benchmark in grid.benchmarks:
                in_cell = (judgments["comparison"] == comparison) & (judgments["benchmark"] == benchmark)
                if model != ALL_MODELS:
                    in_cell &= judgments["model"] == model
                frame = judgments[in_cell]
                covered = compared.loc[frame.index.intersection(compared.index)]
                interval = draw.ratio(covered, "win rate", comparison, model, benchmark)
                controlled = length_controlled(covered, draw.confidence)
                low, high, policy_pairs = _seed_range(covered) if len(covered) else (float("nan"), float("nan"), 0)
                share = covered["points"] / covered["weight"]
                consistent = covered["consistent"].dropna()
                coverage = _coverage(frame)
                rows.append(
                    {
                        "comparison": comparison,
                        "a": sides.a,
                        "b": sides.b,
                        "model": model,
                        "benchmark": benchmark,
                        "win_rate": interval.estimate,
                        "low": interval.low,
                        "high": interval.high,
                        "n": interval.n,
                        "lc_win_rate": controlled.estimate,
                        "lc_low": controlled.low,
                        "lc_high": controlled.high,
                        "lc_far": controlled.far,
                        "judgments": len(covered),
                        "wins": int((share > 0.5).sum()),
                        "ties": int((share == 0.5).sum()),
                        "losses": int((share < 0.5).sum()),
                        "identical": int(covered["flags"].map(lambda flags: "identical" in flags).sum()),
                        "pairs": policy_pairs,
                        "pair_low": low,
                        "pair_high": high,
                        "consistency": float(consistent.astype(float).mean()) if len(consistent) else float("nan"),
                        "first_position": _first_position(covered),
                        "coverage": coverage,
                        "enough_coverage": coverage >= grid.tables.coverage_floor,
                        **{f"imitating_{side}": _imitating(frame, side) for side in "ab"},
                        **_missing(frame),
                    }
                )
    return pd.DataFrame(rows)


def _imitating(frame: pd.DataFrame, side: str) -> float:
    """Share of a side's answers that imitate a verdict or a prompt; NaN if the judgments do not say."""
    checked = [] if "imitating" not in frame else [sides for sides in frame["imitating"] if isinstance(sides, list)]
    return sum(side in sides for sides in checked) / len(checked) if checked else float("nan")


def _missing(frame: pd.DataFrame) -> dict[str, int]:
    """Number of games without a verdict, by reason."""
    reasons = [why for games in frame["games"] for why in missing_verdicts(games)]
    return {why: reasons.count(why) for why in MISSING_REASONS}


def _coverage(frame: pd.DataFrame) -> float:
    """Share of games whose verdict counts; a match without an answer has none."""
    shares = [
        sum(game["outcome"] in POINTS for game in games) / 2 if weight else 0.0
        for games, weight in zip(frame["games"], frame["weight"], strict=True)
    ]
    return sum(shares) / len(shares) if shares else 0.0


def _first_position(frame: pd.DataFrame) -> float:
    """`first_place` of the matches that were judged in both orders."""
    return first_place(game for games in frame.loc[frame["consistent"].notna(), "games"] for game in games)


def first_place(games: Iterable[Row]) -> float:
    """Share of decided games won by the answer shown first; 0.5 without position bias."""
    decided = [game["order"][0] == game["outcome"] for game in games if game["outcome"] in ("a", "b")]
    return sum(decided) / len(decided) if decided else float("nan")


def score_table(scores: pd.DataFrame, grid: Grid, draw: Resampling) -> pd.DataFrame:
    """Means over questions of everything measured without a judge; RL seeds and turns are averaged by question."""
    rows = []
    for (model, benchmark, method), frame in _cells(scores, grid):
        for measure in MEASURES:
            if measure not in frame or frame[measure].isna().all():
                continue
            values = frame[measure].astype(float)
            interval = draw.mean(values, frame["question_id"], "score", model, benchmark, method, measure)
            per_policy = values.groupby(frame["policy"], sort=False).mean()
            rows.append(
                {
                    "model": model,
                    "benchmark": benchmark,
                    "method": method,
                    "measure": measure,
                    "mean": interval.estimate,
                    "low": interval.low,
                    "high": interval.high,
                    "n": interval.n,
                    "seeds": len(per_policy),
                    "seed_low": float(per_policy.min()),
                    "seed_high": float(per_policy.max()),
                }
            )
    return pd.DataFrame(rows)


def _cells(frame: pd.DataFrame, grid: Grid) -> list[tuple[tuple[str, str, str], pd.DataFrame]]:
    """Rows by model, benchmark and method, in config order."""
    groups: dict[Hashable, pd.DataFrame] = dict(iter(frame.groupby(["model", "benchmark", "method"], sort=False)))
    keys = [(m, b, method) for m in grid.models for b in grid.benchmarks for method in grid.methods]
    return [(key, groups[key]) for key in keys if key in groups]


def improvements(scores: pd.DataFrame, grid: Grid, draw: Resampling) -> pd.DataFrame:
    """Differences in reward and gold reward between a comparison's methods, paired by question."""
    cells = dict(_cells(scores, grid))
    rows = []
    for comparison, sides in grid.comparisons.items():
        for model in grid.models:
            for benchmark in grid.benchmarks:
                for measure in ("reward", "gold"):
                    a, b = (
                        cells[model, benchmark, side].groupby("question_id", sort=False)[measure].mean()
                        for side in (sides.a, sides.b)
                    )
                    difference = (a - b).dropna()
                    if difference.empty:
                        continue
                    questions = difference.index.to_series()
                    interval = draw.mean(difference, questions, "improvement", comparison, model, benchmark, measure)
                    rows.append(
                        {
                            "comparison": comparison,
                            "model": model,
                            "benchmark": benchmark,
                            "measure": measure,
                            "difference": interval.estimate,
                            "low": interval.low,
                            "high": interval.high,
                            "n": interval.n,
                        }
                    )
    return pd.DataFrame(rows)


def grade_table(grades: pd.DataFrame, grid: Grid, draw: Resampling) -> pd.DataFrame:
    """Mean ratings over all turns and for each turn."""
    rows = []
    for (model, benchmark, method), frame in _cells(grades, grid):
        for turn in ("all", *sorted(frame["turn"].unique())):
            part = frame if turn == "all" else frame[frame["turn"] == turn]
            rated = part[part["outcome"] == "rated"]
            interval = draw.mean(
                rated["rating"].astype(float), rated["question_id"], "grade", model, benchmark, method, str(turn)
            )
            rows.append(
                {
                    "model": model,
                    "benchmark": benchmark,
                    "method": method,
                    "turn": str(turn),
                    "rating": interval.estimate,
                    "low": interval.low,
                    "high": interval.high,
                    "n": interval.n,
                    "coverage": len(rated) / len(part),
                    "enough_coverage": len(rated) / len(part) >= grid.tables.coverage_floor,
                    "imitating": part["imitating"].astype(float).mean(),
                    **{why: int((part["outcome"] == why).sum()) for why in MISSING_REASONS},
                }
            )
    return pd.DataFrame(rows, columns=GRADE_COLUMNS)


def training_table(training: pd.DataFrame) -> pd.DataFrame:
    """Metrics of each policy, averaged over the last quarter of its steps."""
    steps = training.groupby(["model", "policy"])["step"].transform("max") + 1
    last = training["step"] >= ((1 - LAST_SHARE) * steps).astype(int)
    measures = [name for name in training.columns if name not in (*RUN, "step", "episodes")]
    means = training[last].groupby(RUN, sort=False)[measures].mean().reset_index()
    return means.dropna(axis="columns", how="all")
