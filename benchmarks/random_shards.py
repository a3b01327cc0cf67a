"""A checkpoint at a hub model's full shape, written shard by shard, so it need not fit into memory."""

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from random_model import tokenizer_of_words, with_tokens
from transformers import AutoModelForCausalLM, PretrainedConfig

from salsa.checkpoints.shards import Tensor, begin_shard, plan_shards, shard_names, write_index, write_tensor

SHARD = 5 * 10**9
BLOCK = 1 << 24  # numbers; tensors repeat them, each from a place of its own


def tensors_of(config: PretrainedConfig, folder: Path) -> list[Tensor]:
    """Names and shapes of a model's tensors, without creating them."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    left_out = set(model._tied_weights_keys or ()) if config.tie_word_embeddings else set()
    state = {name: tensor for name, tensor in model.state_dict().items() if name not in left_out}
    return [Tensor(name, "BF16", tuple(each.shape), folder, 0, 2 * each.numel()) for name, each in state.items()]


def numbers(seed: int) -> np.ndarray:
    """Random bfloat16 weights as bytes: the upper halves of float32 numbers."""
    drawn = np.random.default_rng(seed).standard_normal(BLOCK, dtype=np.float32) * np.float32(0.02)
    return (drawn.view(np.uint32) >> 16).astype(np.uint16)


def pieces(tensor: Tensor, block: np.ndarray, seed: int) -> Iterator[memoryview]:
    place, left = random.Random(f"{seed} {tensor.name}").randrange(BLOCK), tensor.size // 2
    while left:
        piece = block[place : place + left]
        yield piece.data.cast("B")
        place, left = 0, left - len(piece)


def make_checkpoint(config: PretrainedConfig, folder: Path, seed: int) -> None:
    folder.mkdir(parents=True)
    plan = plan_shards(tensors_of(config, folder), SHARD)
    files = dict(zip(shard_names(len(plan)), plan, strict=True))
    block = numbers(seed)
    for name, shard in files.items():
        for tensor in begin_shard(folder / name, shard):
            write_tensor(tensor, pieces(tensor, block, seed))
    write_index(folder, files)
    tokenizer = tokenizer_of_words()
    with_tokens(config, tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
