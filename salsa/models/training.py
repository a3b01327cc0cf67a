"""Learning-rate schedules, and batches of similar length."""

from collections.abc import Sequence

import torch
from transformers import get_scheduler

POOL = 16  # batches that are sorted together by length


def pooled_batches(lengths: Sequence[int], size: int, generator: torch.Generator) -> list[list[int]]:
    """Split indices into batches of similar length (less padding), in random order; one pass over the data.

    An incomplete batch comes last, so cutting the concatenated indices by `size` gives the same batches.
    """
    order = torch.randperm(len(lengths), generator=generator).tolist()
    pool = size * POOL
    for begin in range(0, len(order), pool):
        order[begin : begin + pool] = sorted(order[begin : begin + pool], key=lengths.__getitem__)
    full = len(order) // size
    shuffled = torch.randperm(full, generator=generator).tolist()
    rest = [order[full * size :]] if len(order) % size else []
    return [order[i * size : (i + 1) * size] for i in shuffled] + rest


def schedule(
    optimiser: torch.optim.Optimizer, name: str, total: int, warmup_ratio: float = 0.0
) -> torch.optim.lr_scheduler.LRScheduler:
    """A learning-rate schedule over `total` optimiser steps: warm-up, then linear or cosine decay to 0, or constant."""
    kind = "constant_with_warmup" if name == "constant" else name
    return get_scheduler(kind, optimiser, num_warmup_steps=int(warmup_ratio * total), num_training_steps=total)
