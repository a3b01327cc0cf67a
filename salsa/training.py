"""What the training stages share: learning-rate schedules, progress, saving."""

import logging
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase, get_scheduler

from salsa.checkpoints import DTYPES, check_parameters
from salsa.errors import UserError
from salsa.stage import log

T = TypeVar("T")
LINES_IN_A_LOG = 10
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


def steps(items: Sequence[T], what: str, figures: Callable[[], dict[str, float]], done: int = 0) -> Iterator[T]:
    """The items after the `done` first, with a progress bar on a terminal, or a line now and then in a log file."""
    if sys.stderr.isatty() and log.isEnabledFor(logging.INFO):
        bar = tqdm(items[done:], desc=what, leave=False, initial=done, total=len(items))
        for item in bar:
            yield item
            bar.set_postfix(figures(), refresh=False)
        return
    every = max(1, len(items) // LINES_IN_A_LOG)
    for number, item in enumerate(items[done:], done + 1):
        yield item
        if number % every == 0 or number == len(items):
            text = " ".join(f"{name} {value:.4g}" for name, value in figures().items())
            log.info("%s %d/%d %s", what, number, len(items), text)


def check_saving(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: str) -> None:
    """A UserError where `save` would fail in this folder once the model is trained: all but the weights is tried."""
    needed = sum(parameter.numel() for parameter in model.parameters()) * DTYPES[dtype].itemsize
    if (free := shutil.disk_usage(folder).free) < needed:
        raise UserError(
            f"{folder.parent}: the trained model takes {needed / 1e9:.2g} GB, and {free / 1e9:.2g} GB are free"
        )
    try:
        with tempfile.TemporaryDirectory(dir=folder) as tried:
            model.config.save_pretrained(tried)
            if model.can_generate() and model.generation_config is not None:
                model.generation_config.save_pretrained(tried)
            tokenizer.save_pretrained(tried)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{model.name_or_path}: what is trained from it could not be saved ({str(error).splitlines()[0]}): "
            "mend the checkpoint's files before it is trained"
        ) from None


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: str) -> None:
    """An ordinary checkpoint: safetensors in `dtype`, config, tokenizer with its chat template.

    A UserError where training has left no numbers; nothing is saved then.
    """
    model = model.to(DTYPES[dtype])
    check_parameters(model, "training has diverged", "lower the learning rate, or take a wider dtype; nothing is saved")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
