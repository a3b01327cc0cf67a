"""Read stored results into data frames, with one row per judgment, grade, answer, step or soup."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from eval.grid.layout import (
    Grid,
    alpha_file,
    answering,
    data_file,
    frontier_file,
    grade_file,
    judgment_file,
    overlap_file,
    policies,
    reward_file,
    rewards,
    score_file,
    training_file,
)
from salsa.config.algorithms import RL_ALGORITHMS
from salsa.config.replicates import Policy
from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import read_jsonl

Row = dict[str, Any]


def judgments(results: Path, grid: Grid) -> pd.DataFrame:
    """All judgments, with model, benchmark, comparison and replicate."""
    rows = [
        {"model": model, "benchmark": benchmark, "comparison": comparison, "replicate": replicate, **row}
        for model in grid.models
        for benchmark in grid.benchmarks
        for comparison in grid.comparisons
        for replicate in grid.replicates
        for row in nonempty_rows(judgment_file(results, model, benchmark, comparison, replicate), "judge")
    ]
    return pd.DataFrame(rows)


def nonempty_rows(path: Path, stage: str) -> list[Row]:
    """Rows of a stage's output; a UserError if it is empty."""
    rows = read_jsonl(path)
    if not rows:
        raise UserError(f"{path}: empty file: remove it and rerun python -m eval {stage}")
    return rows


def _by_policy(grid: Grid, benchmarks: list[str]) -> Iterator[Row]:
    for model in grid.models:
        for policy in answering(grid.methods, grid.replicates):
            for benchmark in benchmarks:
                yield {"model": model, **_columns(policy), "benchmark": benchmark}


def _columns(policy: Policy) -> Row:
    return {"method": policy.method, "replicate": policy.replicate, "policy": policy.name}


def scores(results: Path, grid: Grid) -> pd.DataFrame:
    """All scored answers."""
    keys = ("model", "policy", "benchmark")
    return pd.DataFrame(
        [
            {**place, **row}
            for place in _by_policy(grid, grid.benchmarks)
            for row in nonempty_rows(score_file(results, *(place[key] for key in keys)), "score")
        ]
    )


def grades(results: Path, grid: Grid) -> pd.DataFrame:
    """All grades; no rows if no benchmark is graded."""
    keys = ("model", "policy", "benchmark")
    rows = [
        {**place, **row}
        for place in _by_policy(grid, grid.graded)
        for row in nonempty_rows(grade_file(results, *(place[key] for key in keys)), "grade")
    ]
    columns = ["model", "method", "replicate", "policy", "benchmark", "question_id", "category", "turn", "template"]
    columns += ["imitating", "outcome", "rating"]
    return pd.DataFrame(rows, columns=columns)


def training(results: Path, grid: Grid) -> pd.DataFrame:
    """All steps of all policies whose algorithm samples responses."""
    rows = [
        {"model": model, **_columns(policy), **row}
        for model in grid.models
        for policy in policies(grid.methods, grid.replicates)
        if grid.methods[policy.method].algorithm in RL_ALGORITHMS
        for row in read_jsonl(training_file(results, model, policy.name))
    ]
    return pd.DataFrame(rows)


def soups(results: Path, grid: Grid) -> pd.DataFrame:
    """All measured soups and checkpoints of the stage `alpha`."""
    return pd.DataFrame(
        [
            {"model": model, "replicate": replicate, **row}
            for model in grid.models
            for replicate in grid.replicates
            for row in read_jsonl(alpha_file(results, model, replicate))
        ]
    )


def frontier(results: Path, grid: Grid) -> pd.DataFrame:
    """All measured checkpoints of the frontier, with their method and beta; SFT 1 has neither."""
    runs = {run.name: run for run in grid.frontier}
    of_policy = {
        policy.name: runs[policy.method] for policy in policies(grid.methods, grid.replicates) if policy.method in runs
    }
    rows = []
    for model in grid.models:
        for replicate in grid.replicates if runs else ():
            for row in read_jsonl(frontier_file(results, model, replicate)):
                run = of_policy.get(row["policy"])
                place = {"model": model, "replicate": replicate}
                rows.append({**place, "method": run and run.method, "beta": run and run.beta, **row})
    return pd.DataFrame(rows)


def _json(path: Path, maker: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot read it ({error}): make it with python -m {maker}") from None


def cards(results: Path, grid: Grid) -> pd.DataFrame:
    """Cards of the reward models."""
    return pd.DataFrame(
        [
            {
                "model": model,
                "replicate": owner,
                "version": version,
                **_json(reward_file(results, model, owner, version), "salsa reward"),
            }
            for model in grid.models
            for owner, version in rewards(grid)
        ]
    )


def data_sets(results: Path, grid: Grid) -> pd.DataFrame:
    """Counts of used and left-out rows of each data set."""
    return pd.DataFrame(
        [
            {"model": model, "set": name, **counts}
            for model in grid.models
            for name, counts in _json(data_file(results, model), "salsa data").items()
        ]
    )


def overlap(results: Path) -> pd.DataFrame:
    """Number of questions of each benchmark that occur in each training set."""
    return pd.DataFrame(
        [
            {
                **{"set": name, "benchmark": benchmark, "questions": result["questions"]},
                **{key: len(result[key]) for key in ("equal", "alike")},
            }
            for name, benchmarks in _json(overlap_file(results), "eval overlap").items()
            for benchmark, result in benchmarks.items()
        ]
    )
