"""KL divergence over the full vocabulary along given answers, and negative log-likelihood.

Logits (float32) exist for one chunk of response positions at a time; with a vocabulary of 256,000 those of a whole
batch would take many GB.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from salsa.models.attention import Packed, hidden_states
from salsa.models.responses import predictors, token_log_probs
from salsa.models.scoring import LOGITS_AT_A_TIME, batches_by_length, output_head
from salsa.runtime.errors import UserError


def kl_divergence(policy: Tensor, reference: Tensor) -> Tensor:
    """KL(policy || reference) [n] in nats, from logits [n, V]."""
    p, q = policy.float().log_softmax(-1), reference.float().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


@torch.inference_mode()
def response_kl(
    policy: PreTrainedModel,
    references: Sequence[PreTrainedModel],
    prompts: Sequence[list[int]],
    responses: Sequence[list[int]],
    batch_size: int,
    logits_at_a_time: int = LOGITS_AT_A_TIME,
) -> list[list[float]]:
    """KL(policy || reference) in nats, summed over the tokens of each response: one list per reference.

    One forward pass of the policy serves all references. At most three chunks of logits exist at once.
    """
    for reference in references:
        if reference.config.vocab_size != policy.config.vocab_size:
            raise UserError(
                f"{policy.name_or_path} has {policy.config.vocab_size} tokens, {reference.name_or_path} "
                f"{reference.config.vocab_size}: KL needs one vocabulary: use checkpoints of one base model"
            )
    totals = [[0.0] * len(prompts) for _ in references]
    heads = [output_head(model) for model in (policy, *references)]
    chunk = max(1, logits_at_a_time // policy.config.vocab_size)
    lengths = [len(prompt) + len(response) for prompt, response in zip(prompts, responses, strict=True)]
    for batch in batches_by_length(lengths, batch_size):
        packed = Packed.of([prompts[i] + responses[i] for i in batch], policy.device)
        places = predictors([prompts[i] for i in batch], [responses[i] for i in batch]).to(policy.device)
        counts = [len(responses[i]) for i in batch]
        states = [hidden_states(model, packed)[places].split(chunk) for model in (policy, *references)]
        pieces: list[list[Tensor]] = [[] for _ in references]
        for chunks in zip(*states, strict=True):
            logits = heads[0](chunks[0])
            for number, (head, hidden) in enumerate(zip(heads[1:], chunks[1:], strict=True)):
                pieces[number].append(kl_divergence(logits, head(hidden)))
        for number, piece in enumerate(pieces):
            sums = [part.double().sum().item() for part in torch.cat(piece).split(counts)]
            for i, value in zip(batch, sums, strict=True):
                totals[number][i] = value
    return totals


@torch.inference_mode()
def mean_nll(
    model: PreTrainedModel, sequences: Sequence[list[int]], masks: Sequence[list[int]], batch_size: int
) -> float:
    """Mean of -log p(token | preceding tokens) over all tokens with mask 1, in nats."""
    total, count = 0.0, 0
    head = output_head(model)
    for batch in batches_by_length([len(row) for row in sequences], batch_size):
        packed = Packed.of([sequences[i] for i in batch], model.device)
        # No token predicts the first one of a sequence.
        wanted = torch.tensor([one and place > 0 for i in batch for place, one in enumerate(masks[i])])
        places = wanted.nonzero()[:, 0].to(model.device) - 1
        tokens = packed.ids[places + 1]
        total -= token_log_probs(hidden_states(model, packed)[places], tokens, head).double().sum().item()
        count += len(tokens)
    return total / count
