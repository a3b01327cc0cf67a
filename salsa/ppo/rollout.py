"""One batch of experience: responses sampled from the policy, scored, with all that the update needs of them.

Everything is computed before the first gradient step and stays as it is through all epochs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from salsa.ppo.math import gae, k1, token_rewards, whiten
from salsa.ppo.models import Models, Sequences, computing_in, log_probs_and_entropy, values
from salsa.sampling import Answer, sample
from salsa.scoring import batches_by_length, rewards
from salsa.sections import Ppo

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
    """Each of the figures [N] that `measure` finds for batches of similar length, as [B, T] in the rows' order."""
    lengths = [len(response) for response in responses]
    rows: list[list[Tensor]] = [[] for _ in responses]
    for batch in batches_by_length([len(p) + n for p, n in zip(prompts, lengths, strict=True)], batch_size):
        found = measure(Sequences.of([prompts[i] for i in batch], [responses[i] for i in batch], pad))
        for parts in (figure.split([lengths[i] for i in batch]) for figure in found):
            for i, part in zip(batch, parts, strict=True):
                rows[i].append(part)
    return [pad_sequence(list(figures), batch_first=True) for figures in zip(*rows, strict=True)]


@torch.no_grad()
def collect(models: Models, prompts: list[Prompt], settings: Ppo, seeds: Sequence[int]) -> Rollout:
    """Samples a response to each prompt and measures it."""
    pad, eos = models.tokenizer.pad_token_id, models.tokenizer.eos_token_id
    asked = [prompt.ids for prompt in prompts]
    temperatures = [settings.temperature] * len(asked)
    with computing_in(settings.dtype):
        answers = sample(models.policy, asked, temperatures, settings.max_new_tokens, seeds, [eos], pad)
        return experience(models, prompts, answers, settings)


@torch.no_grad()
def experience(models: Models, prompts: list[Prompt], answers: list[Answer], settings: Ppo) -> Rollout:
    """Scores given responses and computes all that the updates need of them."""
    pad = models.tokenizer.pad_token_id
    micro = settings.micro_batch_size or settings.rollout_batch_size
    asked, responses = [prompt.ids for prompt in prompts], [answer.token_ids for answer in answers]
    whole = [prompt + response for prompt, response in zip(asked, responses, strict=True)]
    scores = torch.tensor(models.reward.ask(lambda model: rewards(model, whole, pad, micro, *models.normalisation)))

    def measure(figures: Callable[[Sequences], Sequence[Tensor]]) -> list[Tensor]:
        return [figure.cpu() for figure in measured(asked, responses, pad, micro, figures)]

    def of_distribution(model: PreTrainedModel) -> list[Tensor]:
        return measure(lambda sequences: log_probs_and_entropy(model, sequences, settings.temperature))

    # One model after the other, so that those that are not kept need memory one at a time.
    own, entropies = of_distribution(models.policy)
    [old_values] = measure(lambda sequences: [values(models.value, sequences, models.normalisation)])
    frozen = {model: model.ask(of_distribution)[0] for model in dict.fromkeys([*models.references, models.sft])}
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
