"""What models say about given answers: full-vocabulary KL along an answer, negative log-likelihood.

Sequences are right-padded and batched by length. Logits, float32, exist for a chunk of response positions at a time
and never for a whole batch: with a vocabulary of 256,000 a batch's would be many GB.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from salsa.models.scoring import LOGITS_AT_A_TIME, batches_by_length, output_head, predictors, right_pad, states_at
from salsa.ppo.math import token_log_probs
from salsa.runtime.errors import UserError


def kl_divergence(policy: Tensor, reference: Tensor) -> Tensor:
    """KL(policy || reference) [n] in nats, from logits [n, V], over the whole vocabulary."""
    p, q = policy.float().log_softmax(-1), reference.float().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


@torch.inference_mode()
def response_kl(
    policy: PreTrainedModel,
    references: Sequence[PreTrainedModel],
    prompts: Sequence[list[int]],
    responses: Sequence[list[int]],
    pad: int,
    batch_size: int,
    logits_at_a_time: int = LOGITS_AT_A_TIME,
) -> list[list[float]]:
    """Of each reference, each response's sum over its tokens of KL(policy || reference), in nats.

    One forward pass of the policy serves all references. At most three chunks of logits exist at once.
    """
    for reference in references:
        if reference.config.vocab_size != policy.config.vocab_size:
            raise UserError(
                f"{policy.name_or_path} has {policy.config.vocab_size} tokens, {reference.name_or_path} "
                f"{reference.config.vocab_size}: KL needs one vocabulary; name checkpoints of one base model"
            )
    found = [[0.0] * len(prompts) for _ in references]
    heads = [output_head(model) for model in (policy, *references)]
    chunk = max(1, logits_at_a_time // policy.config.vocab_size)
    lengths = [len(prompt) + len(response) for prompt, response in zip(prompts, responses, strict=True)]
    for batch in batches_by_length(lengths, batch_size):
        ids, mask = right_pad([prompts[i] + responses[i] for i in batch], pad, policy.device)
        index, counts = predictors([prompts[i] for i in batch], [responses[i] for i in batch], ids.shape[1])
        states = [states_at(model, ids, mask, index).split(chunk) for model in (policy, *references)]
        pieces: list[list[Tensor]] = [[] for _ in references]
        for chunks in zip(*states, strict=True):
            logits = heads[0](chunks[0])
            for number, (head, hidden) in enumerate(zip(heads[1:], chunks[1:], strict=True)):
                pieces[number].append(kl_divergence(logits, head(hidden)))
        for number, piece in enumerate(pieces):
            sums = [part.double().sum().item() for part in torch.cat(piece).split(counts)]
            for i, value in zip(batch, sums, strict=True):
                found[number][i] = value
    return found


@torch.inference_mode()
def mean_nll(
    model: PreTrainedModel, sequences: Sequence[list[int]], masks: Sequence[list[int]], pad: int, batch_size: int
) -> float:
    """Mean over all tokens with mask 1 of -log p(token | what precedes it), in nats."""
    total, count = 0.0, 0
    head = output_head(model)
    for batch in batches_by_length([len(row) for row in sequences], batch_size):
        ids, mask = right_pad([sequences[i] for i in batch], pad, model.device)
        wanted, _ = right_pad([masks[i] for i in batch], 0, model.device)
        index = wanted[:, 1:].flatten().nonzero()[:, 0]
        # One state fewer than tokens in each row: the first token is predicted from nothing.
        index = index + index // (ids.shape[1] - 1)
        tokens = ids.flatten()[index + 1]
        total -= token_log_probs(states_at(model, ids, mask, index), tokens, head).double().sum().item()
        count += len(tokens)
    return total / count
