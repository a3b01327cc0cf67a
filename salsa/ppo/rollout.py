"""One batch of experience: responses sampled from the policy, scored, with all that the update needs of them.

Everything is computed before the first gradient step and stays as it is through all epochs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from salsa.config.sections import Ppo
from salsa.devices import processes
from salsa.models.sampling import Answer
from salsa.models.scoring import rewards
from salsa.ppo.math import gae, k1, token_rewards, whiten
from salsa.ppo.models import Models, Sequences, computing_in, log_probs_and_entropy, values
from salsa.ppo.samplers import Sampler

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Prompt:
    """A conversation that ends with the user's turn, and its token ids."""

    messages: Messages
    ids: list[int]


@dataclass(frozen=True)
class Rollout:
    """B responses of up to T tokens; tensors [B, T] are 0 outside the mask."""

    prompts: list[Prompt]
    answers: list[Answer]
    scores: Tensor  # [B] normalised reward, without the penalty
    penalised: Tensor  # [B] what the response's last token earns
    mask: Tensor
    log_probs: Tensor
    sampled: Tensor  # what the sampler took for log_probs
    reference: Tensor
    sft: Tensor
    entropy: Tensor
    values: Tensor
    advantages: Tensor  # whitened over the whole batch
    returns: Tensor


def prompt_batches(prompts: Sequence[Prompt], size: int, generator: torch.Generator) -> Iterator[list[Prompt]]:
    """Batches without end, in an order that is drawn anew for each pass over the prompts."""
    waiting: list[int] = []
    while True:
        while len(waiting) < size:
            waiting += torch.randperm(len(prompts), generator=generator).tolist()
        yield [prompts[i] for i in waiting[:size]]
        waiting = waiting[size:]


def measured(
    prompts: Sequence[list[int]],
    responses: Sequence[list[int]],
    pad: int,
    batch_size: int,
    measure: Callable[[Sequences], Sequence[Tensor]],
) -> list[Tensor]:
    """Each of the figures [N] that `measure` finds for batches of similar length, as [B, T] in the rows' order.

    A process measures batches of up to `batch_size` of its share of the rows, and has the figures of all.
    """
    lengths = [len(response) for response in responses]
    own = processes.dealt([len(prompt) + n for prompt, n in zip(prompts, lengths, strict=True)])
    rows: dict[int, list[Tensor]] = {row: [] for row in own}
    for begin in range(0, len(own), batch_size):
        batch = own[begin : begin + batch_size]
        found = measure(Sequences.of([prompts[i] for i in batch], [responses[i] for i in batch], pad))
        for parts in (figure.cpu().split([lengths[i] for i in batch]) for figure in found):
            for i, part in zip(batch, parts, strict=True):
                rows[i].append(part)
    return [pad_sequence(list(figures), batch_first=True) for figures in zip(*processes.gathered(rows), strict=True)]


@torch.no_grad()
def collect(models: Models, sampler: Sampler, prompts: list[Prompt], settings: Ppo, seeds: Sequence[int]) -> Rollout:
    """Samples a response to each prompt and measures it."""
    own = processes.share(len(prompts))
    found = sampler(models.policy, [prompts[i].ids for i in own], [seeds[i] for i in own])
    answers = processes.gathered(dict(zip(own, found, strict=True)))
    with computing_in(settings.dtype):
        return experience(models, prompts, answers, settings)


@torch.no_grad()
def experience(models: Models, prompts: list[Prompt], answers: list[Answer], settings: Ppo) -> Rollout:
    """Scores given responses and computes all that the updates need of them."""
    pad = models.tokenizer.pad_token_id
    micro = settings.micro_batch_size or settings.rollout_batch_size
    asked, responses = [prompt.ids for prompt in prompts], [answer.token_ids for answer in answers]
    whole = [prompt + response for prompt, response in zip(asked, responses, strict=True)]
    mine = processes.dealt([len(sequence) for sequence in whole])
    scored = models.reward.ask(
        lambda model: rewards(model, [whole[i] for i in mine], pad, micro, *models.normalisation)
    )
    scores = torch.tensor(processes.gathered(dict(zip(mine, scored, strict=True))))
    measure = partial(measured, asked, responses, pad, micro)

    def of_distribution(ask: Callable[[Callable[[PreTrainedModel], Any]], Any]) -> list[Tensor]:
        return measure(lambda s: ask(lambda model: log_probs_and_entropy(model, s, settings.temperature)))

    def of_frozen(model: PreTrainedModel) -> Tensor:
        return of_distribution(lambda question: question(model))[0]

    # One model after the other, so that those that are not kept need memory one at a time.
    own, entropies = of_distribution(models.policy.ask)
    [old_values] = measure(lambda s: [models.value.ask(lambda model: values(model, s, models.normalisation))])
    frozen = {model: model.ask(of_frozen) for model in dict.fromkeys([*models.references, models.sft])}
    reference, sft = models.strategy.combine([frozen[model] for model in models.references]), frozen[models.sft]
    lengths = torch.tensor([len(response) for response in responses])
    mask = torch.arange(own.shape[1])[None] < lengths[:, None]
    ended = torch.tensor([answer.ended for answer in answers])
    penalised = scores - settings.missing_eos_penalty * ~ended
    earned = token_rewards(k1(own, reference), penalised, mask, settings.beta)
    advantages, returns = gae(earned, old_values, mask, settings.gamma, settings.lam)
    return Rollout(
        prompts=prompts,
        answers=answers,
        scores=scores,
        penalised=penalised,
        mask=mask,
        log_probs=own,
        sampled=pad_sequence([torch.tensor(answer.log_probs) for answer in answers], batch_first=True),
        reference=reference,
        sft=sft,
        entropy=entropies,
        values=old_values,
        advantages=whiten(advantages, mask),
        returns=returns,
    )
