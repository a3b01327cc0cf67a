"""Settings of the algorithms that train policies: PPO, RLOO and GRPO, which sample responses, and DPO.

The Snakefile imports this at every start, so torch stays out.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from salsa.config.fields import Count, Fraction, Name, NonNegative, Positive, Section
from salsa.config.sections import Engine, FrozenPlace, Lora, Optimisation, TrainingData

# Share of a GPU's memory for vLLM, beside the models in training.
ROLLOUT_VLLM = {"gpu_memory_utilization": 0.3}


class RlSettings(Section):
    """What the algorithms share that sample responses. docs/protocol.md gives the reasons for each default."""

    steps: Count = Field(description="Number of rollouts; each is followed by `epochs` passes over it")
    rollout_batch_size: Count = Field(description="Responses per rollout")
    train_batch_size: Count = Field(description="Responses per optimiser step; divides rollout_batch_size")
    micro_batch_size: Count | None = Field(
        None, description="Responses per forward pass, to save memory; changes only rounding. Default: all at once"
    )
    micro_batch_tokens: Count | None = Field(
        None,
        description="Tokens per forward pass, prompts included: as many responses as fit, which uses a GPU better than "
        "a fixed number. Changes only rounding. Default: no limit",
    )
    sampling_batch_size: Count | None = Field(
        None,
        description="Responses that a process samples at once, to save memory; changes only rounding. Default: all",
    )
    epochs: Count = Field(1, description="Passes over each rollout")
    learning_rate: Positive = Field(description="Initial learning rate of the policy")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="Schedule of the learning rates over all optimiser steps: decay to 0, or constant"
    )
    beta: NonNegative = Field(
        description="KL coefficient, in reward per nat (but see GRPO); fixed: methods differ only in the reference"
    )
    clip: Positive = Field(0.2, description="Clip range of the probability ratio around 1")
    missing_eos_penalty: NonNegative = Field(
        1.0, description="Subtracted from the score of a response cut at the token limit; scores have std 1"
    )
    length_penalty: NonNegative = Field(
        0.0, description="Subtracted from the score for each token of a response; scores have std 1"
    )
    temperature: Positive = Field(1.0, description="Divides the logits, in sampling and in all log-probabilities")
    max_prompt_length: Count = Field(description="In tokens; longer prompts are left out and counted")
    max_new_tokens: Count = Field(description="Longest response, in tokens")
    max_grad_norm: Positive = Field(1.0, description="Gradient norm clip, for each model")
    adam_eps: Positive = Field(1e-5, description="Adam's epsilon")
    adam_betas: tuple[Fraction, Fraction] = Field((0.9, 0.95), description="Adam's betas")
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="Dtype of passes and frozen models; trained weights stay float32 until saved"
    )
    checkpoints_at: list[Count] = Field(
        default_factory=list,
        description="Keep the policy after these numbers of steps, too, for `frontier`; each is a whole checkpoint",
    )
    max_kl: Positive | None = Field(
        None, description="Stop if a rollout's kl_ref_k1 (nats per response) exceeds this. Default: never"
    )
    gradient_checkpointing: bool = Field(False, description="Recompute activations in the backward pass to save memory")
    lora: Lora | None = Field(
        None,
        description="Train adapters of policy (and value model), over a base that all models share which are adapters "
        "of it; default: all weights",
    )
    frozen_models: FrozenPlace = Field(
        "auto",
        description="Where references and reward model stay between uses: on the device, in shards over the processes "
        "(FSDP2), in the host's memory, or on disk. auto: in shards under FSDP2, else on the device",
    )
    rollout: Engine = Field(
        "transformers",
        description="What samples the responses: the trained model itself, or a vLLM engine that receives its weights",
    )
    vllm: dict[str, Any] = Field(
        default_factory=dict, description="Arguments of vLLM's LLM class for rollouts; gpu_memory_utilization: 0.3"
    )

    @property
    def group(self) -> int:
        """Responses to each prompt of a rollout."""
        return 1

    @property
    def updates(self) -> int:
        """Optimiser steps of a run."""
        return self.steps * self.epochs * (self.rollout_batch_size // self.train_batch_size)

    @model_validator(mode="after")
    def _one_engine_per_process(self) -> "RlSettings":
        if self.vllm.get("tensor_parallel_size", 1) != 1:
            raise ValueError("vllm.tensor_parallel_size: each process has its own engine: leave it out")
        return self

    @model_validator(mode="after")
    def _batches_fit(self) -> "RlSettings":
        if self.rollout_batch_size % self.train_batch_size:
            raise ValueError(
                f"rollout_batch_size {self.rollout_batch_size} is not a multiple of "
                f"train_batch_size {self.train_batch_size}"
            )
        if late := [step for step in self.checkpoints_at if step >= self.steps]:
            raise ValueError(f"checkpoints_at: {late[0]} is not before the last of {self.steps} steps: remove it")
        return self


class PpoSettings(RlSettings):
    """PPO with a value model."""

    value_learning_rate: Positive = Field(description="Initial learning rate of the value model, usually larger")
    gamma: Fraction = Field(1.0, description="Discount per token")
    lam: Fraction = Field(
        0.95, description="GAE lambda: 1 gives Monte Carlo returns minus the value, 0 one-step TD errors"
    )
    value_clip: Positive = Field(
        0.2, description="Clip range of the value around the rollout's value, in units of reward"
    )


class GroupSettings(RlSettings):
    """Algorithms that compare the responses to one prompt instead of training a value model."""

    responses_per_prompt: Count = Field(
        4, description="Responses to each prompt of a rollout; divides rollout_batch_size, which counts responses"
    )

    @property
    def group(self) -> int:
        return self.responses_per_prompt

    @model_validator(mode="after")
    def _groups_fit(self) -> "GroupSettings":
        if self.rollout_batch_size % self.responses_per_prompt:
            raise ValueError(
                f"rollout_batch_size {self.rollout_batch_size} is not a multiple of "
                f"responses_per_prompt {self.responses_per_prompt}"
            )
        return self


class RlooSettings(GroupSettings):
    """RLOO: REINFORCE with the mean reward of other responses as baseline."""

    baseline: Literal["prompt", "batch"] = Field(
        "prompt", description="The other responses to the same prompt (RLOO), or all others of the rollout (REINFORCE)"
    )

    @model_validator(mode="after")
    def _has_others(self) -> "RlooSettings":
        if self.baseline == "prompt" and self.responses_per_prompt == 1:
            raise ValueError(
                "responses_per_prompt 1 leaves no others for the baseline: raise it, or set baseline: batch"
            )
        return self


class GrpoSettings(GroupSettings):
    """GRPO: advantages relative to the responses to the same prompt, and the KL as a term of the loss.

    `beta` is therefore in units of the advantages per nat, and not comparable with that of PPO and RLOO.
    """

    scale: Literal["group", "none"] = Field(
        "group", description="Divide advantages by the standard deviation of their group's rewards, or not (Dr. GRPO)"
    )
    corrected_kl: bool = Field(
        True,
        description="Multiply the KL term by the probability ratio: its expected gradient is then that of KL(policy || "
        "reference) (DeepSeek-V3.2), else that of KL(reference || policy) (DeepSeekMath)",
    )
    average: Literal["tokens", "responses"] = Field(
        "tokens", description="Mean of the loss over all tokens, as in PPO, or over each response's and then responses"
    )

    @model_validator(mode="after")
    def _has_others(self) -> "GrpoSettings":
        if self.responses_per_prompt == 1:
            raise ValueError("responses_per_prompt 1 leaves nothing to compare with: raise it")
        return self


class Prompts(Section):
    """What the algorithms train on that sample responses."""

    prompts: TrainingData = Field(description="Prompts for rollouts: rows with `prompt` or `messages`")


class Ppo(PpoSettings, Prompts):
    """PPO, with the prompts to train on."""


class Rloo(RlooSettings, Prompts):
    """RLOO, with the prompts to train on."""


class Grpo(GrpoSettings, Prompts):
    """GRPO, with the prompts to train on."""


class Dpo(Optimisation):
    """TRL's DPOTrainer. Its loss is -log sigmoid(beta ((log pi - log ref)(chosen) - (log pi - log ref)(rejected)))."""

    train: TrainingData
    beta: Positive = Field(description="Strength of the KL constraint to the reference")
    checkpoints_at: list[Count] = Field(
        default_factory=list, description="Keep the policy after these numbers of optimiser steps, too, for `frontier`"
    )


# The algorithms that sample responses, by the name in a method.
Rl = Ppo | Rloo | Grpo
RL_ALGORITHMS: dict[str, type[Rl]] = {"ppo": Ppo, "rloo": Rloo, "grpo": Grpo}


class CombinedReward(Section):
    """Several reward models as one reward. They start alike and read their pairs in different orders."""

    models: Annotated[int, Field(ge=2)] = Field(description="Number of reward models")
    combine: Literal["weights", "mean", "min"] = Field(
        description="Average their weights (WARM, Ramé et al. 2024), or take the mean or the minimum of their scores"
    )

    @property
    def name(self) -> str:
        """What it adds to the names of its files: weights-3."""
        return f"{self.combine}-{self.models}"

    @property
    def versions(self) -> list[str]:
        """Versions of the reward model that are combined: "", "2", …"""
        return ["", *map(str, range(2, self.models + 1))]

    @property
    def scoring_models(self) -> int:
        """Models that pass over each response."""
        return 1 if self.combine == "weights" else self.models


class Warp(Section):
    """WARP (Ramé et al. 2024): rounds of runs from one start; the runs' spherical average is the next round's start."""

    rounds: Count = 2
    runs: Annotated[int, Field(ge=2)] = Field(2, description="Runs of a round; they differ in prompts and sampling")
    eta: Fraction = Field(
        0.3, description="The next round starts at this share of the way from the round's start to its average (LITI)"
    )
    last_eta: Fraction = Field(1.0, description="The same for the policy, after the last round")


class WarpRun(Section):
    """A run of a method with `warp`, as a method of its own. Rounds and numbers count from 1."""

    of: Name
    round: Count
    number: Count

    @property
    def name(self) -> str:
        """Name of the method that is this run."""
        return f"{self.of}.{self.round}.{self.number}"
