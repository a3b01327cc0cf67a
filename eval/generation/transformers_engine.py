"""Generation with transformers, one padded batch at a time."""

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel

from salsa.checkpoints.loading import load_causal
from salsa.models.sampling import Answer, sample


class TransformersEngine:
    """The reference engine; see `Engine`."""

    def __init__(self, model: PreTrainedModel, eos: Sequence[int], pad: int, batch_size: int):
        self.model, self.eos, self.pad, self.at_once = model, list(eos), pad, batch_size

    def swap(self, path: Path, eos: Sequence[int]) -> None:
        """See `Engine`."""
        dtype = str(self.model.dtype).removeprefix("torch.")
        del self.model  # never hold two models in memory
        self.model, self.eos = load_causal(path, dtype), list(eos)

    def generate(
        self, prompts: Sequence[list[int]], temperatures: Sequence[float], max_new_tokens: int, seeds: Sequence[int]
    ) -> list[Answer]:
        """See `Engine`."""
        return sample(self.model, prompts, temperatures, max_new_tokens, seeds, self.eos, self.pad)
