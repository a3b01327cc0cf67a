"""One batch of experience: sample responses, score them, and compute what the models say about them.

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
from salsa.config.algorithms import RlSettings
from salsa.devices import processes
from salsa.models.responses import Sequences, log_probs_and_entropy
from salsa.models.sampling import Answer
from salsa.rollouts.models import Models
from salsa.rollouts.rewards import Prompt
from salsa.rollouts.samplers import Sampler


@dataclass(frozen=True)
class Experience:
    """B responses of up to T tokens; tensors [B, T] are 0 outside the mask."""

    prompts: list[Prompt]
    answers: list[Answer]
    scores: Tensor  # [B] normalised rewards
    penalised: Tensor  # [B] scores minus the penalties for a missing EOS and for length
    mask: Tensor
    log_probs: Tensor
    sampled: Tensor  # the sampler's own log-probabilities
    reference: Tensor
    sft: Tensor
    entropy: Tensor

    def tokens(self, rows: Sequence[int]) -> int:
        """Number of tokens of some responses."""
        return sum(len(self.answers[row].token_ids) for row in rows)


def prompt_batches(prompts: Sequence[Prompt], size: int, generator: torch.Generator) -> Iterator[list[Prompt]]:
    """Yield batches of prompts forever, reshuffled for each pass."""
    waiting: list[int] = []
    while True:
        while len(waiting) < size:
            waiting += torch.randperm(len(prompts), generator=generator).tolist()
        yield [prompts[i] for i in waiting[:size]]
        waiting = waiting[size:]


def forward_batches(prompts: Sequence[Prompt], answers: Sequence[Answer], settings: RlSettings) -> list[list[int]]:
    """This process's share of the responses, divided so that each part fits into a forward pass."""
    lengths = [len(prompt.ids) + len(answer.token_ids) for prompt, answer in zip(prompts, answers, strict=True)]
    return processes.balanced_batches(lengths, settings.micro_batch_size, settings.micro_batch_tokens)


def compute_in_batches(
    prompts: Sequence[Prompt],
    answers: Sequence[Answer],
    settings: RlSettings,
    compute: Callable[[Sequences], Sequence[Tensor]],
) -> list[Tensor]:
    """Compute per-token figures of all responses; each comes back as [B, T] in row order.

    `compute` maps a batch to one tensor [N] per figure. Each process computes its share; all processes get all results.
    """
    batches = forward_batches(prompts, answers, settings)
    results: dict[int, list[Tensor]] = {row: [] for batch in batches for row in batch}
    for batch in batches:
        figures = compute(Sequences.build([prompts[i].ids for i in batch], [answers[i].token_ids for i in batch]))
        for parts in (figure.cpu().split([len(answers[i].token_ids) for i in batch]) for figure in figures):
            for i, part in zip(batch, parts, strict=True):
                results[i].append(part)
    columns = zip(*processes.gather_rows(results), strict=True)
    return [pad_sequence(list(column), batch_first=True) for column in columns]


@torch.no_grad()
def collect(
    models: Models, sampler: Sampler, prompts: list[Prompt], settings: RlSettings, seeds: Sequence[int]
) -> Experience:
    """Sample one response per prompt, and compute the experience. Several responses need the prompt several times."""
    local_rows = processes.even_rows(len(prompts))
    sampled = sampler(models.policy, [prompts[i].ids for i in local_rows], [seeds[i] for i in local_rows])
    answers = processes.gather_rows(dict(zip(local_rows, sampled, strict=True)))
    with autocast(settings.dtype):
        return experience(models, prompts, answers, settings)


@torch.no_grad()
def experience(models: Models, prompts: list[Prompt], answers: list[Answer], settings: RlSettings) -> Experience:
    """Score given responses and compute their log-probabilities."""
    batches = forward_batches(prompts, answers, settings)
    local_rows = [row for batch in batches for row in batch]
    places = torch.arange(len(local_rows)).split([len(batch) for batch in batches])
    local_scores = models.reward(
        [prompts[i] for i in local_rows], [answers[i] for i in local_rows], [part.tolist() for part in places]
    )
    scores = torch.tensor(processes.gather_rows(dict(zip(local_rows, local_scores, strict=True))))
    compute = partial(compute_in_batches, prompts, answers, settings)

    def log_probs_by(forward: Callable[[Callable[[PreTrainedModel], Any]], Any]) -> list[Tensor]:
        return compute(lambda batch: forward(lambda model: log_probs_and_entropy(model, batch, settings.temperature)))

    def frozen_log_probs(model: PreTrainedModel) -> Tensor:
        return log_probs_by(lambda fn: fn(model))[0]

    # One model after the other, so that at most one model that is not kept is in memory.
    policy, entropies = log_probs_by(models.policy.forward)
    frozen = {model: model.forward(frozen_log_probs) for model in dict.fromkeys([*models.references, models.sft])}
    reference, sft = models.strategy.combine([frozen[model] for model in models.references]), frozen[models.sft]
    lengths = torch.tensor([len(answer.token_ids) for answer in answers])
    mask = torch.arange(policy.shape[1])[None] < lengths[:, None]
    ended = torch.tensor([answer.ended for answer in answers])
    penalised = scores - settings.missing_eos_penalty * ~ended - settings.length_penalty * lengths
    return Experience(
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
    )
