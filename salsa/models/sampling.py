"""Sampling from a model: one batch, left-padded, with a key-value cache.

Each response is drawn with random numbers of its own, by inversion of the distribution's cumulative sum, so that
neither the batch nor its order changes an answer (up to rounding in the model's own sums). Rows that have ended leave
the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel


@dataclass(frozen=True)
class Answer:
    """The response's tokens, EOS included where it `ended`; else it was stopped by the limit of new tokens.

    `log_probs` are those the sampler drew with, in nats: rounding makes them differ a little from batch to batch.
    """

    token_ids: list[int]
    ended: bool
    log_probs: list[float] = field(default_factory=list, compare=False)


def left_pad(prompts: Sequence[list[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Token ids and mask, both [B, L] int64, the prompts aligned at the right."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids, mask


def uniforms(seeds: Sequence[int], count: int) -> Tensor:
    """Random numbers in [0, 1), [B, count] float64: a row is a function of its seed alone, on every device."""
    rows = [torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in seeds]
    return torch.stack(rows)


def choose(logits: Tensor, temperatures: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens [B] from softmax(logits / temperature), logits [B, V], and their log-probabilities [B] there.

    Where the temperature is 0: the largest logit, with log-probability 0.
    Inversion: the first token whose cumulative probability exceeds uniform [B] in [0, 1).
    """
    greedy = logits.argmax(-1)
    if not temperatures.any():
        return greedy, torch.zeros_like(uniform, dtype=torch.float32)
    probabilities = (logits.float() / torch.where(temperatures > 0, temperatures, 1.0)[:, None]).softmax(-1)
    cumulative = probabilities.double().cumsum(-1)
    total = cumulative[:, -1:]
    # Rounded up to the total, the threshold would draw the last token, however improbable.
    threshold = torch.minimum(uniform[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    drawn = torch.searchsorted(cumulative, threshold, right=True)[:, 0]
    log_probs = probabilities.gather(1, drawn[:, None])[:, 0].log()
    return torch.where(temperatures > 0, drawn, greedy), torch.where(temperatures > 0, log_probs, 0.0)


@torch.inference_mode()
def sample(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    temperatures: Sequence[float],
    max_new_tokens: int,
    seeds: Sequence[int],
    eos: Sequence[int],
    pad: int,
) -> list[Answer]:
    """One answer a prompt, as one batch: pure sampling at each row's temperature, greedy where it is 0."""
    device = model.device
    tokens, mask = (part.to(device) for part in left_pad(prompts, pad))
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    temperature = torch.tensor(temperatures, device=device, dtype=torch.float32)
    noise = uniforms(seeds, max_new_tokens).to(device)
    rows = torch.arange(len(prompts), device=device)  # places in the batch of the rows that have not ended
    responses = torch.full((len(prompts), max_new_tokens), -1, device=device)
    found = torch.zeros((len(prompts), max_new_tokens), device=device)
    ends = torch.tensor(list(eos), device=device)
    cache = DynamicCache(config=model.config)
    for step in range(max_new_tokens):
        logits = model(
            input_ids=tokens, attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=1
        ).logits[:, -1]
        chosen, log_probs = choose(logits, temperature[rows], noise[rows, step])
        responses[rows, step], found[rows, step] = chosen, log_probs
        running = (~torch.isin(chosen, ends)).nonzero()[:, 0]
        if not len(running):
            break
        if len(running) < len(rows):
            cache.batch_select_indices(running)
            rows, chosen, mask, positions = rows[running], chosen[running], mask[running], positions[running]
        tokens, positions = chosen[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1)
    drawn = [[token for token in row if token >= 0] for row in responses.tolist()]
    return [Answer(ids, ids[-1] in eos, row[: len(ids)]) for ids, row in zip(drawn, found.tolist(), strict=True)]
