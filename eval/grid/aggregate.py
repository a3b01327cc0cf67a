"""Aggregate results into long-form data frames: each row has an estimate, its limits and n."""

from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np
import pandas as pd

from eval.benchmarks.base import MISSING_REASONS, POINTS, missing_verdicts
from eval.grid.layout import ALL_MODELS, Grid
from eval.statistics.intervals import mean, win_rate
from eval.statistics.length_control import difficulty, length_controlled
from salsa.config.config import FIRST_ROLE
from salsa.config.sections import Comparison

Row = dict[str, Any]
LAST_SHARE = 0.25
RUN = ["model", "method", "replicate", "policy"]
GRADE_COLUMNS = ["model", "benchmark", "method", "turn", "rating", "low", "high", "n", "over"]
GRADE_COLUMNS += ["coverage", "enough_coverage", "imitating", *MISSING_REASONS]
DIFFERENCES = ("reward", "reward_held_out", "gold", "kl_sft")
QUESTION = ["model", "benchmark", "replicate", "question_id"]
MEASURES = (*DIFFERENCES, "kl_reference", "tokens", "ended", "distinct_1", "distinct_2")


def _seed_range(frame: pd.DataFrame) -> tuple[float, float, int]:
    """Smallest and largest win rate of a single pair of policies, and the number of pairs."""
    sums = frame.groupby(["a", "b"], sort=False)[["points", "weight"]].sum()
    rates = sums["points"] / sums["weight"]
    return float(rates.min()), float(rates.max()), len(rates)


def win_rates(judgments: pd.DataFrame, grid: Grid) -> pd.DataFrame:
    """Adjusted win rates per model and benchmark, and per benchmark over all models."""
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
                interval = win_rate(covered, grid.tables.confidence)
                controlled = length_controlled(covered, grid.tables.confidence)
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
                        "over": interval.over,
                        "replicates": covered["replicate"].nunique(),
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


def score_table(scores: pd.DataFrame, grid: Grid) -> pd.DataFrame:
    """Means of everything measured without a judge; RL seeds and turns are averaged by replicate and question."""
    rows = []
    for (model, benchmark, method), frame in _cells(scores, grid):
        for measure in MEASURES:
            if measure not in frame or frame[measure].isna().all():
                continue
            values = frame[measure].astype(float)
            interval = mean(values, frame, grid.tables.confidence)
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
                    "over": interval.over,
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


def differences(frame: pd.DataFrame, measure: str, sides: Comparison, by: list[str]) -> pd.DataFrame:
    """Both methods' means by these columns, as a and b, and their difference; no rows if one was not measured."""
    if measure not in frame or frame[measure].isna().all():
        return pd.DataFrame()
    means = frame.groupby(["method", *by], sort=False)[measure].mean()
    if not {sides.a, sides.b} <= set(means.index.unique("method")):
        return pd.DataFrame()
    both = pd.DataFrame({"a": means[sides.a], "b": means[sides.b]}).dropna().reset_index()
    return both.assign(difference=both["a"] - both["b"])


def with_win_rates(points: pd.DataFrame, judgments: pd.DataFrame, grid: Grid, against: str) -> pd.DataFrame:
    """The frontier's points with the win rate at the end of each run, the mean over benchmarks; one half for SFT 1 if
    it is the opponent. Checkpoints on the way answer no benchmark.
    """
    comparisons: dict[str, str] = {}  # one for each method: two comparisons of the same methods have the same matches
    for name, sides in grid.comparisons.items():
        if sides.b == against:
            comparisons.setdefault(sides.a, name)
    played = judgments[judgments["comparison"].isin(comparisons.values())]
    sums = played.groupby(["model", "a", "benchmark"])[["points", "weight"]].sum()
    by_policy = (sums["points"] / sums["weight"]).groupby(["model", "a"]).mean()
    rates = by_policy.reindex(pd.MultiIndex.from_frame(points[["model", "policy"]])).to_numpy()
    opponent = grid.methods[against]
    is_opponent = points["policy"].isna() & (opponent.algorithm == "none" and opponent.init == FIRST_ROLE)
    return points.assign(win_rate=np.where(is_opponent, 0.5, np.where(points["steps"].isna(), rates, np.nan)))


def improvements(scores: pd.DataFrame, grid: Grid) -> pd.DataFrame:
    """Differences of `DIFFERENCES` between a comparison's methods, paired by replicate and question.

    One row for each model and benchmark, and for all of them.
    """
    rows = []
    for comparison, sides in grid.comparisons.items():
        found = {measure: differences(scores, measure, sides, QUESTION) for measure in DIFFERENCES}
        for model in [*grid.models, *([ALL_MODELS] if len(grid.models) > 1 else [])]:
            for benchmark in [*grid.benchmarks, *([ALL_MODELS] if len(grid.benchmarks) > 1 else [])]:
                for measure, every in found.items():
                    if every.empty:
                        continue
                    part = every if model == ALL_MODELS else every[every["model"] == model]
                    part = part if benchmark == ALL_MODELS else part[part["benchmark"] == benchmark]
                    if part.empty:
                        continue
                    interval = mean(part["difference"], part, grid.tables.confidence)
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
                            "over": interval.over,
                        }
                    )
    return pd.DataFrame(rows)


def grade_table(grades: pd.DataFrame, grid: Grid) -> pd.DataFrame:
    """Mean ratings over all turns and for each turn."""
    rows = []
    for (model, benchmark, method), frame in _cells(grades, grid):
        for turn in ("all", *sorted(frame["turn"].unique())):
            part = frame if turn == "all" else frame[frame["turn"] == turn]
            rated = part[part["outcome"] == "rated"]
            interval = mean(rated["rating"].astype(float), rated, grid.tables.confidence)
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
                    "over": interval.over,
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
