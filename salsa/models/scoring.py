"""Forward passes over given sequences, right-padded and batched by length, and the reward model's normalised score."""

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
    """Indices in batches of similar length, the longest first."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    for begin in range(0, len(order), batch_size):
        yield order[begin : begin + batch_size]


def right_pad(sequences: Sequence[list[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and mask, both [B, L] int64, the sequences aligned at the left."""
    longest = max(map(len, sequences))
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in sequences], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in sequences], device=device)
    return ids, mask


def output_head(model: PreTrainedModel) -> Callable[[Tensor], Tensor]:
    """Hidden states [n, D] to logits [n, V]; Gemma 2's cap on the logits included."""
    linear = model.get_output_embeddings()
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return linear if cap is None else lambda hidden: cap * torch.tanh(linear(hidden) / cap)


def normalisation(reward: Path) -> tuple[float, float]:
    """The mean and standard deviation that the reward stage left in the reward model's config."""
    config = read_json(reward / "config.json")
    try:
        return float(config["reward_mean"]), float(config["reward_std"])
    except KeyError as error:
        raise UserError(
            f"{reward / 'config.json'}: no {error.args[0]}: make the reward model with python -m salsa reward"
        ) from None


def predictors(prompts: Sequence[list[int]], responses: Sequence[list[int]], width: int) -> tuple[Tensor, list[int]]:
    """Where, in hidden states [B * width, D], the response tokens are predicted from: one index a token, [N].

    Also each response's length, to split [N] again. The state at a position predicts the next one's token.
    """
    spans = [
        torch.arange(row * width + len(prompt) - 1, row * width + len(prompt) + len(response) - 1)
        for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True))
    ]
    return torch.cat(spans), [len(response) for response in responses]


def states_at(model: PreTrainedModel, ids: Tensor, mask: Tensor, index: Tensor) -> Tensor:
    """The last layer's states [n, D] of right-padded sequences [B, L], at `index` [n] of the B * L positions.

    Nothing is computed for the padding: the model sees the real tokens alone, one sequence behind the other.
    """
    real = mask.flatten().bool()
    positions = (mask.cumsum(1) - 1).flatten()[real]
    states = hidden_states(model, ids.flatten()[real], positions, mask.sum(1).tolist())
    return states[(real.cumsum(0) - 1)[index.to(real.device)]]


@torch.inference_mode()
def rewards(
    model: PreTrainedModel, sequences: Sequence[list[int]], pad: int, batch_size: int, mean: float, std: float
) -> list[float]:
    """Normalised rewards of prompt + response, (logit at the last real token - mean) / std."""
    found = [0.0] * len(sequences)
    for batch in batches_by_length([len(row) for row in sequences], batch_size):
        ids, mask = right_pad([sequences[i] for i in batch], pad, model.device)
        last = torch.arange(len(batch), device=ids.device) * ids.shape[1] + mask.sum(1) - 1
        logits = model.score(states_at(model, ids, mask, last))[:, 0].float()
        for i, logit in zip(batch, logits.tolist(), strict=True):
            found[i] = (logit - mean) / std
    return found
