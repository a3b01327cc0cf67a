"""Learning-rate schedules, and batches of sequences of similar lengths."""

from collections.abc import Sequence

import torch
from transformers import get_scheduler

POOL = 16  # batches that are sorted by length together


def pooled_batches(lengths: Sequence[int], size: int, generator: torch.Generator) -> list[list[int]]:
    """One pass over the indices in batches of similar lengths (less padding), batches in random order.

    A batch that is not full comes last, so that the indices in a row are cut into the same batches again.
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
    """A factor on the learning rate over `total` optimiser steps: linear or cosine to 0, or constant, after warm-up."""
    kind = "constant_with_warmup" if name == "constant" else name
    return get_scheduler(kind, optimiser, num_warmup_steps=int(warmup_ratio * total), num_training_steps=total)
