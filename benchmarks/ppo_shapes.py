"""What ppo_step.py gives to both trainers: models with random weights, prompts, and response lengths.

Both salsa's and TRL's environment import this, so it uses only torch and transformers. Random weights do not know when
to stop, so each response's length is drawn beforehand and its logits are made to give EOS there and nowhere else.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    GemmaForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)

PAD, EOS, BOS = 0, 1, 2


@dataclass(frozen=True)
class Shape:
    """A model, and the work of an update: one rollout of `batch` responses, `epochs` passes of one batch each."""

    causal: type
    scalar: type
    config: type
    sizes: dict[str, Any]
    batch: int
    micro: int  # responses per forward pass, for both
    epochs: int
    new_tokens: int
    max_prompt: int
    dtype: str = "float32"
    lengths: str | None = None  # a file of [prompt, response] lengths; without, they are uniform up to the maxima


SHAPES = {
    "mini": Shape(
        LlamaForCausalLM, LlamaForSequenceClassification, LlamaConfig,
        {"vocab_size": 640, "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 32, "tie_word_embeddings": False},
        batch=64, micro=64, epochs=4, new_tokens=48, max_prompt=160, lengths="mini_lengths.json",
    ),
    "smollm2-135m": Shape(
        LlamaForCausalLM, LlamaForSequenceClassification, LlamaConfig,
        {"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
         "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True},
        batch=8, micro=4, epochs=2, new_tokens=64, max_prompt=96,
    ),
    "gemma-2b": Shape(
        GemmaForCausalLM, GemmaForSequenceClassification, GemmaConfig,
        {"vocab_size": 256000, "hidden_size": 2048, "intermediate_size": 16384, "num_hidden_layers": 18,
         "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256},
        batch=64, micro=8, epochs=1, new_tokens=512, max_prompt=256, dtype="bfloat16",
    ),
}  # fmt: skip


def build(shape: Shape, scalar: bool, seed: int, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """A model with random weights, on the GPU if there is one, where drawing is a hundred times faster."""
    torch.manual_seed(seed)
    labels = {"num_labels": 1} if scalar else {}
    config = shape.config(**shape.sizes, **labels, pad_token_id=PAD, eos_token_id=EOS, bos_token_id=BOS)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        return (shape.scalar if scalar else shape.causal)(config).to(dtype).eval()


def work(shape: Shape, updates: int) -> list[tuple[list[list[int]], list[int]]]:
    """The prompts' tokens and the response lengths of each update; the same for every caller."""
    generator = torch.Generator().manual_seed(1)
    if shape.lengths:
        pairs = json.loads((Path(__file__).parent / shape.lengths).read_text())
    else:
        limits = (shape.max_prompt, shape.new_tokens)
        pairs = [[int(torch.randint(m // 4, m + 1, (), generator=generator)) for m in limits] for _ in range(512)]
    found = []
    for _ in range(updates):
        chosen = [pairs[i] for i in torch.randperm(len(pairs), generator=generator)[: shape.batch].tolist()]
        prompts = [torch.randint(3, shape.sizes["vocab_size"], (n,), generator=generator).tolist() for n, _ in chosen]
        found.append((prompts, [length for _, length in chosen]))
    return found


def force(logits: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Logits [B, V] that give EOS in the rows where `ends` [B] is true, and never EOS in the others."""
    logits = logits.clone()
    logits[:, EOS] = torch.where(ends, torch.finfo(logits.dtype).max / 2, torch.finfo(logits.dtype).min / 2)
    return logits
