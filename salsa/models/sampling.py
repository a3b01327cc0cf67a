"""Draw tokens, and sample from a model with them: one left-padded batch with a key-value cache.

Each response has its own random numbers and is drawn by inverting the cumulative distribution, so batch size and order
do not change an answer (up to rounding in the model). vLLM draws with the same function (vllm_draws.py). Ended rows
leave the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

BLOCK = 1024  # tokens whose probabilities are summed before one of them is drawn
# Tokens after which the host asks which rows have ended. On a GPU it waits for the answer, and the GPU for its next
# work; meanwhile ended rows are drawn in vain.
TOKENS_BETWEEN_WAITS = {"cpu": 1, "cuda": 16}


@dataclass(frozen=True)
class Answer:
    """A response. If it `ended`, its last token is EOS; otherwise it was cut at the token limit.

    `log_probs` are the sampler's, in nats; rounding makes them depend slightly on the batch.
    """

    token_ids: list[int]
    ended: bool
    log_probs: list[float] = field(default_factory=list, compare=False)


def left_pad(prompts: Sequence[list[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Token ids and mask, both [B, L] int64, padded on the left."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids, mask


def uniforms(seeds: Sequence[int], count: int) -> Tensor:
    """Random numbers in [0, 1), [B, count] float64. A row depends only on its seed, not on the device."""
    rows = [torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in seeds]
    return torch.stack(rows)


def choose(logits: Tensor, temperatures: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Draw tokens [B] from softmax(logits / temperature), logits [B, V]; also returns their log-probabilities [B].

    By inversion: the first token whose cumulative probability exceeds `uniform` [B] in [0, 1). At temperature 0 it is
    the largest logit, with log-probability 0. The host never waits for a result.
    """
    probabilities = (logits.float() / torch.where(temperatures > 0, temperatures, 1.0)[:, None]).softmax(-1)
    drawn = invert(probabilities, uniform)
    log_probs = probabilities.gather(1, drawn[:, None])[:, 0].log()
    return torch.where(temperatures > 0, drawn, logits.argmax(-1)), torch.where(temperatures > 0, log_probs, 0.0)


def invert(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """The first token [B] whose cumulative probability exceeds `uniform` [B]; probabilities [B, V].

    In a large vocabulary first the block of tokens is found, then the token in it: a cumulative sum over 256,000 tokens
    would take most of the time of drawing.
    """
    vocabulary = probabilities.shape[1]
    if vocabulary <= BLOCK:
        cumulative = probabilities.double().cumsum(-1)
        return first_above(cumulative, uniform[:, None] * cumulative[:, -1:])[:, 0]
    whole = vocabulary // BLOCK * BLOCK
    blocks = probabilities[:, :whole].unflatten(1, (-1, BLOCK)).sum(-1, dtype=torch.float64)
    rest = probabilities[:, whole:].sum(-1, keepdim=True, dtype=torch.float64)
    sums = torch.cat([blocks, rest], 1).cumsum(-1)
    threshold = uniform[:, None] * sums[:, -1:]
    block = first_above(sums, threshold)
    before = torch.where(block > 0, sums.gather(1, (block - 1).clamp(min=0)), 0.0)
    tokens = block * BLOCK + torch.arange(BLOCK, device=probabilities.device)
    inside = probabilities.gather(1, tokens.clamp(max=vocabulary - 1)).double()
    inside = torch.where(tokens < vocabulary, inside, 0.0).cumsum(-1)
    return (block * BLOCK + first_above(inside, threshold - before))[:, 0]


def first_above(cumulative: Tensor, threshold: Tensor) -> Tensor:
    """Place [B, 1] of the first of the cumulative sums [B, N] that exceeds the threshold [B, 1].

    A threshold that rounds up to the total is moved below it: past the total the last entry would follow, even if it
    adds nothing.
    """
    total = cumulative[:, -1:]
    below = torch.nextafter(total, torch.zeros_like(total))
    return torch.searchsorted(cumulative, torch.minimum(threshold, below), right=True)


def attended(mask: Tensor, cache: DynamicCache) -> Tensor:
    """The mask [B, 1, 1, K] of the next token's attention to K tokens in the cache and itself, from a mask [B, L].

    K is smaller than L in layers with a sliding window. Where layers differ in K it is the mask [B, L]: transformers
    then makes one for each kind of layer, for which the host waits.
    """
    sizes = {cache.get_mask_sizes(1, layer)[0] for layer in range(len(cache.layers))}
    return mask[:, None, None, -sizes.pop() :].bool() if len(sizes) == 1 else mask


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
    """Sample one answer per prompt in one batch, each at its own temperature (0 is greedy); no top-k or top-p."""
    device = model.device
    tokens, mask = (part.to(device) for part in left_pad(prompts, pad))
    positions, width = (mask.cumsum(1) - 1).clamp(min=0), tokens.shape[1]
    mask = torch.cat([mask, mask.new_ones(len(prompts), max_new_tokens)], 1)
    temperature = torch.tensor(temperatures, device=device, dtype=torch.float32)
    noise = uniforms(seeds, max_new_tokens).to(device)
    rows = torch.arange(len(prompts), device=device)  # prompts in the batch, by index
    ended = torch.zeros(len(prompts), device=device, dtype=torch.bool)
    responses = torch.full((len(prompts), max_new_tokens), -1, device=device)
    drawn_log_probs = torch.zeros((len(prompts), max_new_tokens), device=device)
    ends = torch.tensor(list(eos), device=device)
    cache = DynamicCache(config=model.config)
    for step in range(max_new_tokens):
        logits = model(
            input_ids=tokens,
            attention_mask=attended(mask[:, : width + step], cache) if step else mask[:, :width],
            position_ids=positions,
            past_key_values=cache,
            logits_to_keep=1,
        ).logits[:, -1]
        drawn, log_probs = choose(logits, temperature[rows], noise[rows, step])
        responses[rows, step], drawn_log_probs[rows, step] = torch.where(ended, -1, drawn), log_probs
        ended |= torch.isin(drawn, ends)
        if (step + 1) % TOKENS_BETWEEN_WAITS[device.type] == 0:
            running = (~ended).nonzero()[:, 0]
            if not len(running):
                break
            if len(running) < len(rows):
                cache.batch_select_indices(running)
                rows, drawn, mask, positions = rows[running], drawn[running], mask[running], positions[running]
                ended = ended[running]
        tokens, positions = drawn[:, None], positions[:, -1:] + 1
    token_ids = [[token for token in row if token >= 0] for row in responses.tolist()]
    return [
        Answer(ids, ids[-1] in eos, row[: len(ids)])
        for ids, row in zip(token_ids, drawn_log_probs.tolist(), strict=True)
    ]
