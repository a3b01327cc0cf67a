"""One batch of experience: sample responses, score them, and compute all that the updates need.

Everything is computed before the first gradient step and stays fixed for all epochs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from salsa.checkpoints.loading import autocast
from salsa.config.sections import PpoSettings
from salsa.devices import processes
from salsa.models.responses import Sequences, log_probs_and_entropy, values
from salsa.models.sampling import Answer
from salsa.ppo.math import gae, k1, token_rewards, whiten
from salsa.ppo.models import Models, Prompt
from salsa.ppo.samplers import Sampler


@dataclass(frozen=True)
class Rollout:
    """B responses of up to T tokens; tensors [B, T] are 0 outside the mask."""

    prompts: list[Prompt]
    answers: list[Answer]
    scores: Tensor  # [B] normalised rewards
    penalised: Tensor  # [B] scores minus the penalty for a missing EOS
    mask: Tensor
    log_probs: Tensor
    sampled: Tensor  # the sampler's own log-probabilities
    reference: Tensor
    sft: Tensor
    entropy: Tensor
    values: Tensor
    advantages: Tensor  # whitened over the whole batch
    returns: Tensor


def prompt_batches(prompts: Sequence[Prompt], size: int, generator: torch.Generator) -> Iterator[list[Prompt]]:
    """Yield batches of prompts forever, reshuffled for each pass."""
    waiting: list[int] = []
    while True:
        while len(waiting) < size:
            waiting += torch.randperm(len(prompts), generator=generator).tolist()
        yield [prompts[i] for i in waiting[:size]]
        waiting = waiting[size:]


def compute_in_batches(
    prompts: Sequence[list[int]],
    responses: Sequence[list[int]],
    batches: Sequence[Sequence[int]],
    compute: Callable[[Sequences], Sequence[Tensor]],
) -> list[Tensor]:
    """Compute per-token figures of all responses; each comes back as [B, T] in row order.

    `compute` maps a batch to one tensor [N] per figure. Each process computes its own `batches`; all processes get all
    results.
    """
    results: dict[int, list[Tensor]] = {row: [] for batch in batches for row in batch}
    for batch in batches:
        figures = compute(Sequences.build([prompts[i] for i in batch], [responses[i] for i in batch]))
        for parts in (figure.cpu().split([len(responses[i]) for i in batch]) for figure in figures):
            for i, part in zip(batch, parts, strict=True):
                results[i].append(part)
    columns = zip(*processes.gather_rows(results), strict=True)
    return [pad_sequence(list(column), batch_first=True) for column in columns]


@torch.no_grad()
def collect(
    models: Models, sampler: Sampler, prompts: list[Prompt], settings: PpoSettings, seeds: Sequence[int]
) -> Rollout:
    """Sample one response per prompt and compute the rollout."""
    local_rows = processes.even_rows(len(prompts))
    sampled = sampler(models.policy, [prompts[i].ids for i in local_rows], [seeds[i] for i in local_rows])
    answers = processes.gather_rows(dict(zip(local_rows, sampled, strict=True)))
    with autocast(settings.dtype):
        return experience(models, prompts, answers, settings)


@torch.no_grad()
def experience(models: Models, prompts: list[Prompt], answers: list[Answer], settings: PpoSettings) -> Rollout:
    """Score given responses and compute log-probabilities, values, advantages and returns."""
    prompt_ids, responses = [prompt.ids for prompt in prompts], [answer.token_ids for answer in answers]
    lengths_of_both = [len(prompt) + len(response) for prompt, response in zip(prompt_ids, responses, strict=True)]
    batches = processes.balanced_batches(lengths_of_both, settings.micro_batch_size, settings.micro_batch_tokens)
    local_rows = [row for batch in batches for row in batch]
    places = torch.arange(len(local_rows)).split([len(batch) for batch in batches])
    local_scores = models.reward(
        [prompts[i] for i in local_rows], [answers[i] for i in local_rows], [part.tolist() for part in places]
    )
    scores = torch.tensor(processes.gather_rows(dict(zip(local_rows, local_scores, strict=True))))
    compute = partial(compute_in_batches, prompt_ids, responses, batches)

    def log_probs_by(forward: Callable[[Callable[[PreTrainedModel], Any]], Any]) -> list[Tensor]:
        return compute(lambda batch: forward(lambda model: log_probs_and_entropy(model, batch, settings.temperature)))

    def frozen_log_probs(model: PreTrainedModel) -> Tensor:
        return log_probs_by(lambda fn: fn(model))[0]

    # One model after the other, so that at most one model that is not kept is in memory.
    policy, entropies = log_probs_by(models.policy.forward)
    [old_values] = compute(
        lambda batch: [models.value.forward(lambda model: values(model, batch, models.normalisation))]
    )
    frozen = {model: model.forward(frozen_log_probs) for model in dict.fromkeys([*models.references, models.sft])}
    reference, sft = models.strategy.combine([frozen[model] for model in models.references]), frozen[models.sft]
    lengths = torch.tensor([len(response) for response in responses])
    mask = torch.arange(policy.shape[1])[None] < lengths[:, None]
    ended = torch.tensor([answer.ended for answer in answers])
    penalised = scores - settings.missing_eos_penalty * ~ended
    rewards_by_token = token_rewards(k1(policy, reference), penalised, mask, settings.beta)
    advantages, returns = gae(rewards_by_token, old_values, mask, settings.gamma, settings.lam)
    return Rollout(
        prompts=prompts,
        answers=answers,
        scores=scores,
        penalised=penalised,
        mask=mask,
        log_probs=policy,
        sampled=pad_sequence([torch.tensor(answer.log_probs) for answer in answers], batch_first=True),
        reference=reference,
        sft=sft,
        entropy=entropies,
        values=old_values,
        advantages=whiten(advantages, mask),
        returns=returns,
    )
