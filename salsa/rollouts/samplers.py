"""Samplers of a rollout's responses: the trained model itself, or a vLLM engine that receives its weights.

In both cases the old log-probabilities come from the trainer (rollout.py); `sampler_gap` measures how far the sampler's
are from them. Each process samples for its own share of the prompts.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from salsa.checkpoints.loading import autocast
from salsa.config.algorithms import ROLLOUT_VLLM, RlSettings
from salsa.devices import processes
from salsa.models.sampling import Answer, sample
from salsa.models.trained import Trained
from salsa.models.vllm_engine import VllmEngine


class Sampler(Protocol):
    """Samples responses from the current policy."""

    def __call__(self, policy: Trained, prompts: Sequence[list[int]], seeds: Sequence[int]) -> list[Answer]:
        """Sample one response per prompt. All processes have to call it."""
        ...

    def close(self) -> None:
        """Free resources, before the process group ends."""
        ...


class TransformersSampler:
    """Samples with transformers from the trained model itself."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, settings: RlSettings):
        self.tokenizer, self.settings = tokenizer, settings

    def __call__(self, policy: Trained, prompts: Sequence[list[int]], seeds: Sequence[int]) -> list[Answer]:
        settings, eos, pad = self.settings, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        size = settings.sampling_batch_size or len(prompts)
        answers: list[Answer] = []
        with autocast(settings.dtype), policy.complete(settings.dtype) as model:
            for begin in range(0, len(prompts), size):
                batch, batch_seeds = prompts[begin : begin + size], seeds[begin : begin + size]
                temperatures = [settings.temperature] * len(batch)
                answers += sample(model, batch, temperatures, settings.max_new_tokens, batch_seeds, [eos], pad)
        return answers

    def close(self) -> None:
        """Nothing to free."""


class VllmSampler:
    """Samples with a vLLM engine in this process, after copying the policy's weights into it.

    Between rollouts the engine sleeps, so that training has its memory.
    """

    def __init__(self, init: Path, tokenizer: PreTrainedTokenizerBase, settings: RlSettings):
        self.settings = settings
        options = {**ROLLOUT_VLLM, **settings.vllm}
        if processes.count() > 1:
            options["distributed_executor_backend"] = "external_launcher"  # accelerate's
        self.engine = VllmEngine(init, [tokenizer.eos_token_id], settings.dtype, options, in_process=True)
        self.engine.sleep()

    def __call__(self, policy: Trained, prompts: Sequence[list[int]], seeds: Sequence[int]) -> list[Answer]:
        self.engine.load_weights(policy.weights())
        temperatures = [self.settings.temperature] * len(prompts)
        answers = self.engine.generate(prompts, temperatures, self.settings.max_new_tokens, seeds, log_probs=True)
        self.engine.sleep()
        return answers

    def close(self) -> None:
        """Shut the engine down."""
        self.engine.close()


def load_sampler(init: Path, tokenizer: PreTrainedTokenizerBase, settings: RlSettings) -> Sampler:
    """The configured sampler, for a policy that starts from `init`."""
    if settings.rollout == "vllm":
        return VllmSampler(init, tokenizer, settings)
    return TransformersSampler(tokenizer, settings)
