"""What samples a rollout's responses: the model in training itself, or a vLLM engine that is given its weights.

Either way the updates' old log-probabilities come from the trainer (rollout.py), and `sampler_gap` tells how far the
sampler's are from them. Each process samples for its own share of the prompts.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from salsa.config.sections import ROLLOUT_VLLM, Ppo
from salsa.devices import processes
from salsa.models.sampling import Answer, sample
from salsa.models.vllm_engine import VllmEngine
from salsa.ppo.models import Trained, computing_in


class Sampler(Protocol):
    def __call__(self, policy: Trained, prompts: Sequence[list[int]], seeds: Sequence[int]) -> list[Answer]:
        """A response to each prompt by the policy as it is now; all processes have to call."""
        ...

    def close(self) -> None:
        """At the end, before the processes leave each other."""
        ...


class TransformersSampler:
    def __init__(self, tokenizer: PreTrainedTokenizerBase, settings: Ppo):
        self.tokenizer, self.settings = tokenizer, settings

    def __call__(self, policy: Trained, prompts: Sequence[list[int]], seeds: Sequence[int]) -> list[Answer]:
        settings, eos, pad = self.settings, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        size = settings.sampling_batch_size or len(prompts)
        found: list[Answer] = []
        with computing_in(settings.dtype), policy.whole(settings.dtype) as model:
            for begin in range(0, len(prompts), size):
                part, draws = prompts[begin : begin + size], seeds[begin : begin + size]
                temperatures = [settings.temperature] * len(part)
                found += sample(model, part, temperatures, settings.max_new_tokens, draws, [eos], pad)
        return found

    def close(self) -> None:
        """Nothing is open."""


class VllmSampler:
    def __init__(self, init: Path, tokenizer: PreTrainedTokenizerBase, settings: Ppo):
        self.settings = settings
        options = {**ROLLOUT_VLLM, **settings.vllm}
        if processes.count() > 1:
            options["distributed_executor_backend"] = "external_launcher"  # that is accelerate's
        self.engine = VllmEngine(init, [tokenizer.eos_token_id], settings.dtype, options, in_process=True)

    def __call__(self, policy: Trained, prompts: Sequence[list[int]], seeds: Sequence[int]) -> list[Answer]:
        self.engine.take(policy.weights())
        temperatures = [self.settings.temperature] * len(prompts)
        return self.engine.generate(prompts, temperatures, self.settings.max_new_tokens, seeds, log_probs=True)

    def close(self) -> None:
        """See `Sampler`."""
        self.engine.close()


def load_sampler(init: Path, tokenizer: PreTrainedTokenizerBase, settings: Ppo) -> Sampler:
    """The sampler that the settings name, for a policy that starts from `init`."""
    if settings.rollout == "vllm":
        return VllmSampler(init, tokenizer, settings)
    return TransformersSampler(tokenizer, settings)
