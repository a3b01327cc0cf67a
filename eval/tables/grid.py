"""The grid as tables see it, and the layout of its results folder.

generations/MODEL/POLICY/BENCHMARK.jsonl    scores/MODEL/POLICY/BENCHMARK.jsonl
judgments/MODEL/BENCHMARK/COMPARISON.jsonl  grades/MODEL/POLICY/BENCHMARK.jsonl
training/MODEL/POLICY.jsonl                 alpha/MODEL.jsonl
reward/MODEL.json   data/MODEL.json         overlap.json    calibration.json
tables/  figures/  report.html
"""

from pathlib import Path

from salsa.config.config import Config, Method
from salsa.config.fields import Section
from salsa.config.naming import Checkpoint, soup_of
from salsa.config.sections import Alpha, Comparison, Tables

ALL_MODELS = "all"  # value of the column `model` for the judgments of all models together


class Grid(Section):
    """The part of the config that tables, figures and the report use."""

    grid: str
    models: list[str]
    methods: dict[str, Method]
    rl_seeds: list[int]
    benchmarks: list[str]
    graded: list[str]
    comparisons: dict[str, Comparison]
    judge: str
    dated: bool = False  # whether tables show when the judge was called
    tables: Tables


def grid_of(config: Config) -> Grid:
    """Extract a Grid from the config."""
    return Grid(
        grid=config.grid,
        models=list(config.models),
        methods=config.methods,
        rl_seeds=config.rl_seeds,
        benchmarks=list(config.benchmarks),
        graded=[name for name, benchmark in config.benchmarks.items() if benchmark.grade],
        comparisons=config.comparisons,
        judge=f"{config.judge.model} (gold judge)" if config.judge.kind == "gold" else config.judge.model,
        dated=config.judge.kind == "endpoint",
        tables=config.tables,
    )


def policies(methods: dict[str, Method], rl_seeds: list[int], method: str) -> list[str]:
    """Policies of a method: METHOD-sN for each RL seed, or METHOD if it is not trained."""
    return [method] if methods[method].algorithm == "none" else [f"{method}-s{seed}" for seed in rl_seeds]


def pairs(methods: dict[str, Method], rl_seeds: list[int], comparison: Comparison) -> list[tuple[str, str]]:
    """Pairs of policies of a comparison: equal RL seeds are paired; an untrained method is paired with every seed."""
    a, b = (policies(methods, rl_seeds, method) for method in (comparison.a, comparison.b))
    count = max(len(a), len(b))
    return list(zip(a * (count // len(a)), b * (count // len(b)), strict=True))


def alpha_line(alpha: Alpha) -> dict[float, Checkpoint]:
    """Soups along the line between two SFT models, by alpha; at 0 and 1 the SFT models themselves."""
    first, last = alpha.between
    line: dict[float, Checkpoint] = {point: soup_of({first: 1 - point, last: point}) for point in alpha.points}
    ends = {0.0: first, 1.0: last}
    return line | {point: end for point, end in ends.items() if point in line}


def generation_file(results: Path, model: str, policy: str, benchmark: str) -> Path:
    return results / "generations" / model / policy / f"{benchmark}.jsonl"


def judgment_file(results: Path, model: str, benchmark: str, comparison: str) -> Path:
    return results / "judgments" / model / benchmark / f"{comparison}.jsonl"


def grade_file(results: Path, model: str, policy: str, benchmark: str) -> Path:
    return results / "grades" / model / policy / f"{benchmark}.jsonl"


def score_file(results: Path, model: str, policy: str, benchmark: str) -> Path:
    return results / "scores" / model / policy / f"{benchmark}.jsonl"


def training_file(results: Path, model: str, policy: str) -> Path:
    return results / "training" / model / f"{policy}.jsonl"


def alpha_file(results: Path, model: str) -> Path:
    return results / "alpha" / f"{model}.jsonl"


def reward_file(results: Path, model: str) -> Path:
    return results / "reward" / f"{model}.json"


def data_file(results: Path, model: str) -> Path:
    return results / "data" / f"{model}.json"


def overlap_file(results: Path) -> Path:
    return results / "overlap.json"


def calibration_file(results: Path) -> Path:
    return results / "calibration.json"


def measured_files(results: Path, grid: Grid) -> dict[str, Path]:
    """All input files of the tables, by their path below the results folder."""
    all_policies = [policy for method in grid.methods for policy in policies(grid.methods, grid.rl_seeds, method)]
    trained = [p for method in grid.methods for p in policies(grid.methods, grid.rl_seeds, method) if p != method]
    files = []
    for model in grid.models:
        files += [judgment_file(results, model, b, c) for b in grid.benchmarks for c in grid.comparisons]
        files += [grade_file(results, model, policy, b) for policy in all_policies for b in grid.graded]
        files += [score_file(results, model, policy, b) for policy in all_policies for b in grid.benchmarks]
        files += [training_file(results, model, policy) for policy in trained]
        files += [alpha_file(results, model), reward_file(results, model), data_file(results, model)]
    files.append(overlap_file(results))
    return {str(path.relative_to(results)): path for path in files}
