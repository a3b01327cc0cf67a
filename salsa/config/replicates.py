"""Replicates: independent draws of everything in training, and the policies of each.

replicates:
  r1: {sft: {sft-1: 1, sft-2: 2}}
  r2: {sft: {sft-1: 3, sft-2: 4}, reward_seed: 2}

Methods name SFT models by role (sft-1, sft-2). A replicate binds each role to the seed of an SFT run. A grid without
the section has one replicate, without a name, in which sft-N is the SFT run of seed N.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from salsa.config.fields import Count, Section, Seeds
from salsa.config.naming import BASE, Checkpoint, Perturbed, soup_of

# Without a dash, so that METHOD-REPLICATE-sSEED can be read in one way only; and s1 would read as an RL seed.
ReplicateName = Annotated[str, Field(pattern=r"^([a-rt-z0-9_][a-z0-9_]*|s(\d*[a-z_][a-z0-9_]*)?)$")]
Role = Annotated[str, Field(pattern=r"^sft-\d+$")]
UNNAMED = ""  # the only replicate of a grid without the section
HELD_OUT = "held-out"  # owner of the reward model that no policy is trained against; not a name of a replicate


class Replicate(Section):
    """One draw of everything in training: the SFT runs behind the roles, the RL seeds, possibly the reward model."""

    sft: dict[Role, Count] = Field(min_length=1, description="The seed of the SFT run that plays each role")
    rl_seeds: Seeds | None = Field(None, description="RL seeds of this replicate; default: the config's rl_seeds")
    reward_seed: Count | None = Field(
        None,
        description="Train a reward model of its own, from its sft-1 with this seed; "
        "default: the reward model that starts from the first replicate's sft-1",
    )
    overlapping: bool = Field(
        False, description="Allow SFT runs that another replicate uses too; the replicates are then not independent"
    )

    def check_roles(self, name: str, used: Mapping[str, str]) -> None:
        """Raise a ValueError unless each used role has an SFT run of its own; `used` says which key uses it."""
        for role, user in used.items():
            if role not in self.sft:
                raise ValueError(f"replicates.{name}.sft: no SFT run for {role}, which {user} uses: add it")
        runs = list(self.sft.values())
        if twice := [seed for seed in runs if runs.count(seed) > 1]:
            raise ValueError(f"replicates.{name}.sft: two roles are SFT run {twice[0]}: give each its own")


@dataclass(frozen=True)
class Policy:
    """A method's policy in one replicate. `rl_seed` is None for a method that trains nothing."""

    method: str
    replicate: str
    rl_seed: int | None

    @property
    def name(self) -> str:
        """METHOD-REPLICATE-sSEED; without a seed if it is not trained, without a replicate if it has no name."""
        return policy_name(self.method, suffix(self.replicate), self.rl_seed)


def policy_name(method: str, replicate_suffix: str, rl_seed: int | None) -> str:
    """A policy's name; see `Policy.name`."""
    return f"{method}{replicate_suffix}" + ("" if rl_seed is None else f"-s{rl_seed}")


def suffix(replicate: str) -> str:
    """What a replicate adds to names: -REPLICATE, or nothing if it has no name."""
    return f"-{replicate}" if replicate else ""


def bind(checkpoint: Checkpoint, seeds: Mapping[str, int]) -> Checkpoint:
    """A checkpoint with its roles replaced by SFT runs; `seeds` is a replicate's `sft`."""

    def of_seed(role: str) -> str:
        return role if role == BASE else f"sft-{seeds[role]}"

    def of_seeds(weights: Mapping[str, float]) -> dict[str, float]:
        return {of_seed(role): weight for role, weight in weights.items()}

    match checkpoint:
        case str():
            return of_seed(checkpoint)
        case {"soup": dict(weights)}:
            return soup_of(of_seeds(weights))
        case {"slerp": dict(weights)}:
            slerp: Literal["soup", "slerp"] = "slerp"
            return {slerp: of_seeds(weights)}
        case {"greedy": list(models)}:
            greedy: Literal["greedy"] = "greedy"
            return {greedy: [of_seed(role) for role in models]}
        case {"perturbed": Perturbed(of=of, like=like, draw=draw)}:
            perturbed: Literal["perturbed"] = "perturbed"
            return {perturbed: Perturbed(of=of_seed(of), like=of_seeds(like), draw=draw)}
    raise AssertionError(checkpoint)


def shared_sft_runs(replicates: Mapping[str, Replicate]) -> list[tuple[str, str, list[int]]]:
    """Pairs of replicates with the seeds of the SFT runs that both use."""
    names = list(replicates)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    seeds = {name: set(replicate.sft.values()) for name, replicate in replicates.items()}
    return [(a, b, sorted(seeds[a] & seeds[b])) for a, b in pairs if seeds[a] & seeds[b]]


def check_independence(replicates: Mapping[str, Replicate]) -> None:
    """Raise a ValueError if two replicates share an SFT run and neither says `overlapping`."""
    for a, b, seeds in shared_sft_runs(replicates):
        if not (replicates[a].overlapping or replicates[b].overlapping):
            raise ValueError(
                f"replicates.{b}.sft: SFT run {seeds[0]} is in {a}, too, so the two are not independent: "
                "use other runs, or set overlapping: true"
            )
