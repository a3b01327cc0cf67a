"""The grid as tables see it, and the layout of its results folder.

generations/MODEL/POLICY/BENCHMARK.jsonl    scores/MODEL/POLICY/BENCHMARK.jsonl
judgments/MODEL/BENCHMARK/COMPARISON.jsonl  grades/MODEL/POLICY/BENCHMARK.jsonl
training/MODEL/POLICY.jsonl                 alpha/MODEL.jsonl      frontier/MODEL.jsonl
reward/MODEL.json   data/MODEL.json         overlap.json    calibration.json
tables/  figures/  report.html

With replicates: POLICY, COMPARISON, alpha/MODEL and frontier/MODEL end with -REPLICATE (salsa/config/replicates.py),
and so does reward/MODEL for a reward model of its own; reward/MODEL.2 and reward/MODEL.weights-3 are other versions of
it (salsa.config.methods.reward_versions).
"""

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from eval.grid.claims import Claim, load_claims
from salsa.config.config import Config, FrontierRun, all_replicates, frontier_runs
from salsa.config.fields import Section
from salsa.config.layout import reward_name
from salsa.config.methods import Method, reward_versions
from salsa.config.naming import Checkpoint, soup_of
from salsa.config.replicates import HELD_OUT, Policy, Replicate, suffix
from salsa.config.sections import Alpha, Comparison, Tables

ALL_MODELS = "all"  # value of the column `model` for the judgments of all models together


class Grid(Section):
    """The part of the config that tables, figures and the report use."""

    grid: str
    models: list[str]
    methods: dict[str, Method]
    replicates: dict[str, Replicate]
    benchmarks: list[str]
    graded: list[str]
    comparisons: dict[str, Comparison]
    frontier: list[FrontierRun] = Field(default_factory=list, description="Methods at several betas")
    frontier_against: str | None = Field(None, description="The method that the frontier's runs are judged against")
    frontier_curve: str | None = Field(None, description="The method by whose curve single policies are compared")
    held_out: bool = Field(False, description="Whether there is a reward model that no policy is trained against")
    claims: dict[str, Claim]
    judge: str
    dated: bool = False  # whether tables show when the judge was called
    tables: Tables


def grid_of(config: Config) -> Grid:
    """Extract a Grid from the config."""
    return Grid(
        grid=config.grid,
        models=list(config.models),
        methods=config.methods,
        replicates=all_replicates(config),
        benchmarks=list(config.benchmarks),
        graded=[name for name, benchmark in config.benchmarks.items() if benchmark.grade],
        comparisons=config.comparisons,
        frontier=frontier_runs(config),
        frontier_against=config.frontier.against if config.frontier else None,
        frontier_curve=config.frontier.curve if config.frontier else None,
        held_out=config.reward.held_out is not None,
        claims=load_claims(config.claims),
        judge=f"{config.judge.model} (gold judge)" if config.judge.kind == "gold" else config.judge.model,
        dated=config.judge.kind == "endpoint",
        tables=config.tables,
    )


def policies(methods: Mapping[str, Method], replicates: Mapping[str, Replicate]) -> list[Policy]:
    """All policies of a model, by method, replicate and RL seed. Replicates have their RL seeds (`all_replicates`)."""
    return [
        Policy(method, replicate, seed)
        for method, entry in methods.items()
        for replicate, draws in replicates.items()
        for seed in ([None] if entry.algorithm == "none" else draws.rl_seeds or [])
    ]


def answering(methods: Mapping[str, Method], replicates: Mapping[str, Replicate]) -> list[Policy]:
    """The policies that answer the benchmarks."""
    return [policy for policy in policies(methods, replicates) if methods[policy.method].answers]


def pairs(
    methods: Mapping[str, Method], replicates: Mapping[str, Replicate], comparison: Comparison, replicate: str
) -> list[tuple[str, str]]:
    """Pairs of policies of a comparison in a replicate, by name.

    Equal RL seeds are paired; an untrained method is paired with every seed.
    """
    found = policies(methods, {replicate: replicates[replicate]})
    a, b = ([policy.name for policy in found if policy.method == method] for method in (comparison.a, comparison.b))
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


def judgment_file(results: Path, model: str, benchmark: str, comparison: str, replicate: str) -> Path:
    return results / "judgments" / model / benchmark / f"{comparison}{suffix(replicate)}.jsonl"


def grade_file(results: Path, model: str, policy: str, benchmark: str) -> Path:
    return results / "grades" / model / policy / f"{benchmark}.jsonl"


def score_file(results: Path, model: str, policy: str, benchmark: str) -> Path:
    return results / "scores" / model / policy / f"{benchmark}.jsonl"


def training_file(results: Path, model: str, policy: str) -> Path:
    return results / "training" / model / f"{policy}.jsonl"


def alpha_file(results: Path, model: str, replicate: str) -> Path:
    return results / "alpha" / f"{model}{suffix(replicate)}.jsonl"


def frontier_file(results: Path, model: str, replicate: str) -> Path:
    return results / "frontier" / f"{model}{suffix(replicate)}.jsonl"


def reward_file(results: Path, model: str, owner: str, version: str) -> Path:
    """The card of a reward model; `owner` is its replicate, or "" for the shared one."""
    return results / "reward" / f"{reward_name(model, owner, version)}.json"


def rewards(grid: Grid) -> list[tuple[str, str]]:
    """Owner and version of a model's reward models."""
    versions = reward_versions(grid.methods)
    owners = reward_owners(grid.replicates, grid.held_out)
    return [(owner, version) for owner in owners for version in (versions if owner != HELD_OUT else [""])]


def reward_owners(replicates: Mapping[str, Replicate], held_out: bool) -> list[str]:
    """Replicates with a reward model of their own; "" stands for the shared one, if a replicate uses it; `HELD_OUT` for
    the one that no policy is trained against.
    """
    owners = dict.fromkeys(name if draws.reward_seed is not None else "" for name, draws in replicates.items())
    return [*owners, *([HELD_OUT] if held_out else [])]


def data_file(results: Path, model: str) -> Path:
    return results / "data" / f"{model}.json"


def overlap_file(results: Path) -> Path:
    return results / "overlap.json"


def calibration_file(results: Path) -> Path:
    return results / "calibration.json"


def measured_files(results: Path, grid: Grid) -> dict[str, Path]:
    """All input files of the tables, by their path below the results folder."""
    every, answered = policies(grid.methods, grid.replicates), answering(grid.methods, grid.replicates)
    files = []
    for model in grid.models:
        files += [
            judgment_file(results, model, benchmark, comparison, replicate)
            for benchmark in grid.benchmarks
            for comparison in grid.comparisons
            for replicate in grid.replicates
        ]
        files += [grade_file(results, model, policy.name, b) for policy in answered for b in grid.graded]
        files += [score_file(results, model, policy.name, b) for policy in answered for b in grid.benchmarks]
        files += [training_file(results, model, policy.name) for policy in every if policy.rl_seed is not None]
        files += [alpha_file(results, model, replicate) for replicate in grid.replicates]
        files += [frontier_file(results, model, replicate) for replicate in grid.replicates if grid.frontier]
        files += [reward_file(results, model, owner, version) for owner, version in rewards(grid)]
        files.append(data_file(results, model))
    files.append(overlap_file(results))
    return {str(path.relative_to(results)): path for path in files}
