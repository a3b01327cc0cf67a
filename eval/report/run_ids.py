"""Which training runs stand behind a comparison: replicate, SFT runs, RL seed, and the ids of the runs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.grid.layout import Grid, generation_file, pairs, policies
from salsa.config.replicates import Replicate
from salsa.runtime.errors import UserError
from salsa.runtime.provenance import run_file


def describe_replicates(replicates: Mapping[str, Replicate]) -> str:
    """How many replicates with which RL seeds, as text."""
    by_seeds: dict[str, list[str]] = {}
    for name, draws in replicates.items():
        seeds = draws.rl_seeds or []
        text = f"RL seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
        by_seeds.setdefault(text, []).append(name)
    count = f"{len(replicates)} replicates" if len(replicates) > 1 else "1 replicate"
    if len(by_seeds) == 1:
        return f"{count}, {next(iter(by_seeds))}"
    return f"{count}: " + "; ".join(f"{', '.join(names)} with {text}" for text, names in by_seeds.items())


@dataclass(frozen=True)
class PolicyPair:
    """Two policies that were compared, by name, and where they come from. A run id is None without a run.json."""

    comparison: str
    model: str
    replicate: str
    rl_seed: int | None
    sft: dict[str, int]
    a: str
    b: str
    a_run: str | None
    b_run: str | None

    def for_page(self) -> dict[str, Any]:
        """The pair as the page's JSON has it."""
        return {
            **{name: getattr(self, name) for name in ("comparison", "model", "replicate", "rl_seed")},
            "sft": sft_runs(self.sft),
            "policies": {"a": self.a, "b": self.b},
            "runs": {"a": self.a_run, "b": self.b_run},
        }


def sft_runs(sft: dict[str, int]) -> str:
    """The SFT runs of a replicate as text: "sft-1: 4, sft-2: 5"."""
    return ", ".join(f"{role}: {seed}" for role, seed in sft.items())


def run_record(path: Path) -> dict[str, Any]:
    """The run.json of an output; empty without one."""
    file = run_file(path)
    try:
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{file}: not a run record ({error}): rebuild {path}") from None
    return record


def run_id(path: Path) -> str | None:
    """The id of the run that made an output."""
    identity: str | None = run_record(path).get("id")
    return identity


def trained_by(results: Path, model: str, policy: str, benchmark: str) -> str | None:
    """The id of the run that trained a policy, from the record of its answers."""
    inputs = run_record(generation_file(results, model, policy, benchmark)).get("inputs", {})
    identity: str | None = inputs.get("policy", {}).get("id")
    return identity.removeprefix("run:") if identity else None


def policy_pairs(results: Path, grid: Grid) -> list[PolicyPair]:
    """All pairs of policies of all comparisons and models."""
    seeds = {policy.name: policy.rl_seed for policy in policies(grid.methods, grid.replicates)}
    runs: dict[tuple[str, str], str | None] = {}
    compared = []
    for comparison, sides in grid.comparisons.items():
        for model in grid.models:
            for replicate, draws in grid.replicates.items():
                for a, b in pairs(grid.methods, grid.replicates, sides, replicate):
                    for policy in (a, b):
                        if (model, policy) not in runs:
                            runs[model, policy] = trained_by(results, model, policy, grid.benchmarks[0])
                    seed = seeds[a] if seeds[a] is not None else seeds[b]
                    ids = (runs[model, a], runs[model, b])
                    compared.append(PolicyPair(comparison, model, replicate, seed, draws.sft, a, b, *ids))
    return compared
