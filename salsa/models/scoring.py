"""Forward passes over given sequences, batched by length, and the reward model's normalised score."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from salsa.checkpoints.ensembles import read_ensemble
from salsa.checkpoints.loading import load_reward
from salsa.checkpoints.shards import read_json
from salsa.models.attention import Packed, hidden_states
from salsa.runtime.errors import UserError

LOGITS_AT_A_TIME = 1 << 25  # elements: 128 MB of float32


def batches_by_length(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Yield indices in batches of similar length, longest first."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    for begin in range(0, len(order), batch_size):
        yield order[begin : begin + batch_size]


def output_head(model: PreTrainedModel) -> Callable[[Tensor], Tensor]:
    """The map from hidden states [n, D] to logits [n, V], including Gemma 2's logit softcapping."""
    linear = model.get_output_embeddings()
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return linear if cap is None else lambda hidden: cap * torch.tanh(linear(hidden) / cap)


def new_head(model: PreTrainedModel, generator: torch.Generator) -> None:
    """Initialise the scalar head from N(0, 1/(d + 1)) (Stiennon et al. 2020); it has no bias."""
    with torch.no_grad():
        weight = model.score.weight
        weight.copy_(torch.randn(weight.shape, generator=generator) / math.sqrt(weight.shape[1] + 1))


def normalisation(reward: Path) -> tuple[float, float]:
    """Mean and std of the raw score, which the stage `reward` wrote into the reward model's config."""
    config = read_json(reward / "config.json")
    try:
        return float(config["reward_mean"]), float(config["reward_std"])
    except KeyError as error:
        raise UserError(
            f"{reward / 'config.json'}: no {error.args[0]}: train the reward model with python -m salsa reward"
        ) from None


@torch.inference_mode()
def rewards(
    model: PreTrainedModel,
    sequences: Sequence[list[int]],
    batches: Iterable[Sequence[int]],
    mean: float = 0.0,
    std: float = 1.0,
) -> list[float]:
    """Normalised rewards of sequences (prompt + response): (logit at the last token - mean) / std.

    `batches` are the sequences' indices by forward pass.
    """
    results = [0.0] * len(sequences)
    for batch in batches:
        packed = Packed.of([sequences[i] for i in batch], model.device)
        states = hidden_states(model, packed)[packed.last()]
        # With LoRA the head is float32 over a base that may not be.
        logits = model.score(states.to(model.score.weight.dtype))[:, 0].float()
        for i, logit in zip(batch, logits.tolist(), strict=True):
            results[i] = (logit - mean) / std
    return results


class Scorer:
    """A reward model or an ensemble, in memory, that gives normalised rewards of sequences (prompt + response)."""

    def __init__(self, folder: Path, dtype: str):
        self.ensemble = read_ensemble(folder)
        folders = [folder] if self.ensemble is None else self.ensemble.models
        self.models = [(load_reward(path, dtype), normalisation(path)) for path in folders]

    def __call__(self, sequences: list[list[int]], batch_size: int) -> list[float]:
        """Score sequences, `batch_size` of similar length at a time."""
        batches = list(batches_by_length(list(map(len, sequences)), batch_size))
        of_models = [rewards(model, sequences, batches, *scale) for model, scale in self.models]
        return of_models[0] if self.ensemble is None else self.ensemble.scores(of_models)
