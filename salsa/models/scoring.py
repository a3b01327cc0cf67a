"""Forward passes over given sequences, batched by length, and the reward model's normalised score."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from salsa.checkpoints.shards import read_json
from salsa.models.attention import hidden_states
from salsa.runtime.errors import UserError

LOGITS_AT_A_TIME = 1 << 25  # elements: 128 MB of float32


def batches_by_length(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Yield indices in batches of similar length, longest first."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    for begin in range(0, len(order), batch_size):
        yield order[begin : begin + batch_size]


def right_pad(sequences: Sequence[list[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and mask, both [B, L] int64, padded on the right."""
    longest = max(map(len, sequences))
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in sequences], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in sequences], device=device)
    return ids, mask


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


def predictors(prompts: Sequence[list[int]], responses: Sequence[list[int]], width: int) -> tuple[Tensor, list[int]]:
    """Indices [N] into hidden states [B * width, D] from which the response tokens are predicted, and response lengths.

    The state at a position predicts the next token, so each index is one before its token. N is the sum of the lengths.
    """
    spans = [
        torch.arange(row * width + len(prompt) - 1, row * width + len(prompt) + len(response) - 1)
        for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True))
    ]
    return torch.cat(spans), [len(response) for response in responses]


def states_at(model: PreTrainedModel, ids: Tensor, mask: Tensor, index: Tensor) -> Tensor:
    """Last-layer hidden states [n, D] of right-padded sequences [B, L], at `index` [n] of the B * L positions.

    The sequences are packed for the pass, so nothing is computed for padding.
    """
    real = mask.flatten().bool()
    positions = (mask.cumsum(1) - 1).flatten()[real]
    states = hidden_states(model, ids.flatten()[real], positions, mask.sum(1).tolist())
    return states[(real.cumsum(0) - 1)[index.to(real.device)]]


@torch.inference_mode()
def rewards(
    model: PreTrainedModel, sequences: Sequence[list[int]], pad: int, batch_size: int, mean: float, std: float
) -> list[float]:
    """Normalised rewards of sequences (prompt + response): (logit at the last token - mean) / std."""
    results = [0.0] * len(sequences)
    for batch in batches_by_length([len(row) for row in sequences], batch_size):
        ids, mask = right_pad([sequences[i] for i in batch], pad, model.device)
        last = torch.arange(len(batch), device=ids.device) * ids.shape[1] + mask.sum(1) - 1
        logits = model.score(states_at(model, ids, mask, last))[:, 0].float()
        for i, logit in zip(batch, logits.tolist(), strict=True):
            results[i] = (logit - mean) / std
    return results
