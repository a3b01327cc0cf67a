"""A method as data: an algorithm, a starting checkpoint, a reference, and possibly a reward of its own."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from salsa.config.algorithms import RL_ALGORITHMS, CombinedReward, Warp, WarpRun
from salsa.config.fields import Section
from salsa.config.naming import Checkpoint, checkpoint_name
from salsa.config.references import Fixed, Strategy, parse_reference


class Method(Section):
    """A method is an algorithm, a starting checkpoint and a reference. PPO and SALSA differ only in the reference."""

    algorithm: Literal["none", "ppo", "rloo", "grpo", "dpo"]
    init: Checkpoint
    reference: str | dict[str, Any] | None = Field(None, description="A checkpoint, or a strategy of references.py")
    settings: dict[str, Any] = Field(default_factory=dict, description="Overrides of the algorithm's section")
    answers: bool = Field(True, description="Whether its policies answer the benchmarks; comparisons need it")
    reward: CombinedReward | None = Field(
        None, description="Several reward models as the reward; default: the reward model of the replicate"
    )
    warp: Warp | None = Field(None, description="Train in rounds of several runs that are averaged")
    warp_run: WarpRun | None = Field(None, description="Set by the config itself, for the runs of a method with warp")

    @field_validator("init")
    @classmethod
    def _known_checkpoint(cls, value: Checkpoint) -> Checkpoint:
        checkpoint_name(value)
        return value

    @field_validator("reference")
    @classmethod
    def _known_reference(cls, value: Any) -> Any:
        for checkpoint in parse_reference(value)[1] if value is not None else ():
            checkpoint_name(checkpoint)
        return value

    @model_validator(mode="after")
    def _reference_fits(self) -> "Method":
        if (self.algorithm == "none") != (self.reference is None):
            raise ValueError("a trained method needs a reference; algorithm none takes none")
        strategy, _ = self.reference_parts()
        if self.algorithm == "dpo" and strategy.moves:
            raise ValueError(f"reference {strategy.kind} changes during training: dpo needs a fixed one")
        if self.reward is not None and self.algorithm not in RL_ALGORITHMS:
            raise ValueError(f"reward: algorithm {self.algorithm} uses no reward model: remove it")
        if self.warp is not None and (self.algorithm not in RL_ALGORITHMS or self.reference_parts()[1] != [self.init]):
            raise ValueError(
                "warp: its runs sample responses, against a reference that starts where they start: write for example "
                "algorithm: ppo, init: sft-1, reference: {ema: {of: sft-1}}"
            )
        return self

    def warp_runs(self, name: str) -> list[WarpRun]:
        """The runs of a method with `warp`, whose name is `name`, by round; none for other methods."""
        rounds, runs = (self.warp.rounds, self.warp.runs) if self.warp else (0, 0)
        return [WarpRun(of=name, round=r, number=n) for r in range(1, rounds + 1) for n in range(1, runs + 1)]

    def reference_parts(self) -> tuple[Strategy, list[Checkpoint]]:
        """The reference strategy and its checkpoints (none for an untrained method)."""
        return (Fixed(), []) if self.reference is None else parse_reference(self.reference)


def combined_rewards(methods: Mapping[str, Method]) -> dict[str, CombinedReward]:
    """The rewards that the methods combine of several reward models, by name."""
    return {method.reward.name: method.reward for method in methods.values() if method.reward is not None}


def reward_versions(methods: Mapping[str, Method]) -> list[str]:
    """Versions that the methods need of each reward model.

    "" is the reward model itself. "2" and further numbers start as it does and read their pairs in another order.
    "weights-3" is what a method combines of three of them.
    """
    combined = combined_rewards(methods)
    most = max((reward.versions for reward in combined.values()), key=len, default=[""])
    return [*most, *combined]
