"""Log-probabilities, entropies and values of given responses. Logits of a whole batch never exist at once.

Shapes: N response tokens of a batch in row order, D hidden size, V vocabulary. Log-probabilities and entropies are in
nats, and float32 whatever the model's dtype.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from salsa.checkpoints.loading import device
from salsa.models.attention import Packed, hidden_states
from salsa.models.scoring import LOGITS_AT_A_TIME, output_head


def _negative_log_probs(hidden: Tensor, tokens: Tensor, head: Callable[[Tensor], Tensor], temperature: float) -> Tensor:
    return functional.cross_entropy(head(hidden).float() / temperature, tokens, reduction="none")


def token_log_probs(
    hidden: Tensor, tokens: Tensor, head: Callable[[Tensor], Tensor], temperature: float = 1.0, chunk: int | None = None
) -> Tensor:
    """Log-probabilities [N] of `tokens` [N] under softmax(head(hidden) / temperature), hidden [N, D].

    `head` maps [n, D] to logits [n, V]. With `chunk`, logits of at most that many positions exist at once; they are
    recomputed in the backward pass.
    """
    if chunk is None or len(tokens) <= chunk:
        return -_negative_log_probs(hidden, tokens, head, temperature)
    pieces = zip(hidden.split(chunk), tokens.split(chunk), strict=True)
    return -torch.cat(
        [checkpoint(_negative_log_probs, *piece, head, temperature, use_reentrant=False) for piece in pieces]
    )


def entropy(log_probs: Tensor) -> Tensor:
    """Entropy [...] of distributions given as log-probabilities [..., V]; tokens of probability 0 add nothing."""
    return -torch.special.xlogy(log_probs.exp(), log_probs.exp()).sum(-1)


def predictors(prompts: Sequence[list[int]], responses: Sequence[list[int]]) -> Tensor:
    """Places [N] of the hidden states from which the response tokens are predicted, in packed prompts with responses.

    The state at a position predicts the next token, so each place is one before its token. N is the number of tokens in
    all responses.
    """
    places, begin = [], 0
    for prompt, response in zip(prompts, responses, strict=True):
        first = begin + len(prompt) - 1
        places.append(torch.arange(first, first + len(response)))
        begin += len(prompt) + len(response)
    return torch.cat(places)


@dataclass(frozen=True)
class Sequences:
    """Packed prompts with responses. For the N response tokens: their ids `tokens` [N], and the `places` [N] of the
    hidden states that predict them."""

    packed: Packed
    places: Tensor
    tokens: Tensor

    @staticmethod
    def build(prompts: Sequence[list[int]], responses: Sequence[list[int]]) -> "Sequences":
        """Pack prompts and responses (token ids), on this process's device."""
        packed = Packed.of([prompt + response for prompt, response in zip(prompts, responses, strict=True)], device())
        places = predictors(prompts, responses).to(device())
        return Sequences(packed, places, packed.ids[places + 1])

    def states(self, model: PreTrainedModel) -> Tensor:
        """The model's hidden states [N, D] that predict the response tokens."""
        return hidden_states(model, self.packed)[self.places]


def chunk_size(model: PreTrainedModel) -> int:
    """Number of positions whose logits may exist at once."""
    return max(1, LOGITS_AT_A_TIME // model.config.get_text_config().vocab_size)


def log_probs(model: PreTrainedModel, sequences: Sequences, temperature: float) -> Tensor:
    """Log-probabilities [N] of the response tokens at the sampling temperature."""
    states = sequences.states(model)
    return token_log_probs(states, sequences.tokens, output_head(model), temperature, chunk_size(model))


@torch.no_grad()
def log_probs_and_entropy(model: PreTrainedModel, sequences: Sequences, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities [N] of the response tokens, and the entropies [N] of the distributions at their positions."""
    states = sequences.states(model)
    head, chunk = output_head(model), chunk_size(model)
    log_probs, entropies = [], []
    for part, tokens in zip(states.split(chunk), sequences.tokens.split(chunk), strict=True):
        distribution = (head(part).float() / temperature).log_softmax(-1)
        log_probs.append(distribution.gather(1, tokens[:, None])[:, 0])
        entropies.append(entropy(distribution))
    return torch.cat(log_probs), torch.cat(entropies)


def values(model: PreTrainedModel, sequences: Sequences, normalise: tuple[float, float]) -> Tensor:
    """Values [N] of the states before each response token, in units of the normalised reward."""
    states = sequences.states(model)
    mean, std = normalise
    return (model.score(states)[:, 0].float() - mean) / std
