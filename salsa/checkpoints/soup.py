"""Soups: weighted averages of checkpoints, tensor by tensor, computed in float32 and cast once.

Tensors are streamed in small pieces from the ingredients' files to the soup's, so memory does not grow with the model.
No model is instantiated; tied embeddings are averaged once, as stored. A soup of LoRA adapters is an adapter.
"""

import argparse
import contextlib
import json
import math
import multiprocessing
import os
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from salsa.checkpoints import floats
from salsa.checkpoints.compatibility import check_files, check_tensors, copied_files
from salsa.checkpoints.floats import FLOATS
from salsa.checkpoints.shards import (
    SIZES,
    Tensor,
    begin_shard,
    is_adapter,
    plan_shards,
    read_exactly,
    read_json,
    read_tensors,
    shard_names,
    write_index,
    write_tensor,
)
from salsa.checkpoints.unused_tensors import without_unused
from salsa.config.naming import check_weights
from salsa.config.sections import Soup
from salsa.runtime.errors import UserError
from salsa.runtime.log import log
from salsa.runtime.outputs import output_folder
from salsa.runtime.provenance import Run
from salsa.runtime.settings import load_settings

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
BATCH = 8  # tensors that a process averages before it takes more
NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
Sources = list[tuple[Tensor, float]]  # an average's tensors and their weights


def parse_size(text: str) -> int:
    """Parse a size such as 4GB (powers of ten) or 500MiB (powers of two) into bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?", text.strip().upper())
    size = int(float(match[1]) * UNITS[match[2]]) if match and match[2] in UNITS else 0
    if size < 1:
        raise UserError(f"soup.shard_size: {text!r} is not a size: write for example 4GB or 500MiB")
    return size


class Averager:
    """Averages tensors piece by piece. Keeps files open and reuses its buffers."""

    def __init__(self, stack: contextlib.ExitStack):
        self.stack = stack
        self.open: dict[Path, int] = {}
        self.raw = np.empty(floats.PIECE * 8, np.uint8)
        self.sum, self.term = np.empty(floats.PIECE, np.float32), np.empty(floats.PIECE, np.float32)
        self.wide = np.empty(floats.PIECE, np.float64), np.empty(floats.PIECE, np.float64)

    def _read(self, tensor: Tensor, begin: int, size: int) -> memoryview:
        if tensor.file not in self.open:
            self.open[tensor.file] = self.stack.enter_context(tensor.file.open("rb", buffering=0)).fileno()
        piece = self.raw.data[:size]
        read_exactly(self.open[tensor.file], piece, tensor.start + begin, tensor.file)
        return piece

    def average(self, sources: Sources, dtype: str) -> Iterator[memoryview]:
        """Yield sum_i weight_i * tensor_i in pieces, as bytes of `dtype`, rounded once.

        The sum is float32 (float64 if a tensor is) and starts from the first term, so a single source of weight 1 is
        copied bit for bit. Integers and booleans have to be equal in all sources and are copied. Raises a UserError
        for NaN or infinity.
        """
        first = sources[0][0]
        if first.dtype not in FLOATS:
            check_equal(sources, self._read)
            for begin in range(0, first.size, floats.PIECE):
                yield self._read(first, begin, min(floats.PIECE, first.size - begin))
            return
        paired = {dtype, *(tensor.dtype for tensor, _ in sources)} == {"BF16"}
        elements = first.size // SIZES[first.dtype]
        for begin in range(0, elements, floats.PIECE):
            count = min(floats.PIECE, elements - begin)
            total = self._sum(sources, begin, count, paired)
            if not floats.fits(total, dtype):
                for tensor, _ in sources:
                    floats.check_finite(tensor, tensor.file.parent)
                raise UserError(f"tensor {first.name}: the average is too large for {dtype}: set soup.dtype: float32")
            yield floats.narrow(total, dtype, paired).data.cast("B")[: count * SIZES[dtype]]

    @np.errstate(over="ignore", invalid="ignore")  # `floats.fits` detects overflow
    def _sum(self, sources: Sources, begin: int, count: int, paired: bool) -> np.ndarray:
        double = any(tensor.dtype == "F64" for tensor, _ in sources)
        even = count + count % 2  # padded by a zero that is cut off later
        total, term = (buffer[:even] for buffer in (self.wide if double else (self.sum, self.term)))
        for number, (tensor, weight) in enumerate(sources):
            width = SIZES[tensor.dtype]
            self._read(tensor, begin * width, count * width)
            self.raw[count * width : even * width] = 0
            target = term if number else total
            floats.widen(self.raw[: even * width].view(FLOATS[tensor.dtype]), tensor.dtype, target, paired)
            target *= total.dtype.type(weight)
            if number:
                total += term
        return total


def write_averages(averages: Sequence[tuple[Tensor, Sources]]) -> None:
    """Write tensors into begun files, each as the average of its sources."""
    with contextlib.ExitStack() as stack:
        averager = Averager(stack)
        for tensor, sources in averages:
            write_tensor(tensor, averager.average(sources, tensor.dtype))


def end_with_parent() -> None:
    """End this process when its parent has ended, even by kill -9. Ctrl-C is left to the parent."""
    parent = multiprocessing.parent_process()
    if parent is None:
        raise RuntimeError("not a process that multiprocessing has started")

    def wait() -> None:
        parent.join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=wait, daemon=True).start()


def check_equal(sources: Sources, read: Callable[[Tensor, int, int], memoryview]) -> None:
    """Raise a UserError unless an integer or boolean tensor is the same in all sources."""
    first = sources[0][0]
    for tensor, _ in sources[1:]:
        for begin in range(0, first.size, floats.PIECE):
            size = min(floats.PIECE, first.size - begin)
            if bytes(read(first, begin, size)) != bytes(read(tensor, begin, size)):
                raise UserError(
                    f"tensor {first.name} ({first.dtype}) differs between {first.file} and {tensor.file}, and integers "
                    "cannot be averaged: average only checkpoints of one model"
                )


def check_ingredients(ingredients: Mapping[Path, float], allow_any_sum: bool) -> None:
    """Raise a UserError unless weights are finite, not all zero, and sum to 1 (or any sum is allowed)."""
    for path, weight in ingredients.items():
        if not math.isfinite(weight):
            raise UserError(f"--ingredient {path}={weight}: the weight is not finite: give a number")
    if not any(ingredients.values()):
        raise UserError("--ingredient: all weights are 0: give at least one other weight")
    if not allow_any_sum:
        try:
            check_weights({str(path): weight for path, weight in ingredients.items()}, "--ingredient")
        except ValueError as error:
            raise UserError(f"{error}, or pass --allow-any-sum") from None


def soup(
    ingredients: Mapping[Path, float],
    out: Path,
    shard_size: str = "4GB",
    allow_any_sum: bool = False,
    dtype: str | None = None,
    processes: int = 1,
) -> dict[str, Any]:
    """Write the weighted average of the checkpoints `ingredients` {folder: weight} into the existing folder `out`.

    Tokenizer and config come from the first ingredient. Float tensors get `dtype` (a key of `NAMES`), by default each
    tensor's dtype in the first ingredient. Ingredients of weight 0 are checked like the others and then ignored.
    Several `processes` share the tensors; the soup does not depend on their number. Returns facts for run.json: dtypes
    read and written, and tensors left out (unused_tensors.py).
    """
    check_ingredients(ingredients, allow_any_sum)
    limit = parse_size(shard_size)
    folders = list(ingredients)
    if any(map(is_adapter, folders)):
        return adapter_soup(ingredients, out)
    loaded = [without_unused(folder, read_tensors(folder)) for folder in folders]
    checkpoints = [tensors for tensors, _ in loaded]
    left_out = {str(folder): names for folder, (_, names) in zip(folders, loaded, strict=True) if names}
    for folder, names in left_out.items():
        log.warning(
            "%s: tensors left out of the soup because the model does not load them: %s", folder, ", ".join(names)
        )
    check_tensors(folders, checkpoints)
    check_files(folders)
    used = [
        (tensors, ingredients[folder])
        for folder, tensors in zip(folders, checkpoints, strict=True)
        if ingredients[folder]
    ]
    plan = plan_shards((as_written(tensor, dtype) for tensor in checkpoints[0].values()), limit)
    files = dict(zip(shard_names(len(plan)), plan, strict=True))
    written = [tensor for name, shard in files.items() for tensor in begin_shard(out / name, shard)]
    averages = [(tensor, [(tensors[tensor.name], weight) for tensors, weight in used]) for tensor in written]
    if processes == 1:
        write_averages(averages)
    else:
        batches = [averages[begin : begin + BATCH] for begin in range(0, len(averages), BATCH)]
        with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), end_with_parent) as pool:
            list(pool.map(write_averages, batches))  # raises the first batch's error
    if len(files) > 1:
        write_index(out, files)
    for file in copied_files(folders[0]):
        shutil.copyfile(file, out / file.name)
    if dtype is not None:
        set_dtype(out / "config.json", dtype)
    read = {str(folder): dtypes_of(tensors.values()) for folder, tensors in zip(folders, checkpoints, strict=True)}
    return {"dtypes_read": read, "dtypes_written": dtypes_of(t for shard in plan for t in shard), "left_out": left_out}


def adapter_soup(ingredients: Mapping[Path, float], out: Path) -> dict[str, Any]:
    """Write a soup of LoRA adapters of one base as an adapter: base + sum_i weight_i change_i, exactly.

    That is the average of the weights, because the ingredients' weights sum to 1. The base may be an ingredient. Ranks
    add up, and the soup keeps the adapters' float32. Returns facts for run.json.
    """
    # Imported only here, because it needs torch, which takes seconds.
    from salsa.checkpoints.adapters import read_adapter, weighted_sum, write_adapter

    check_ingredients(ingredients, allow_any_sum=False)
    folders = list(ingredients)
    adapters = {folder: read_adapter(folder) for folder in folders}
    first = adapters[folders[0]]
    for folder, adapter in adapters.items():
        if adapter.base != first.base:
            raise UserError(
                f"{folder}: its base is {adapter.base}, that of {folders[0]} is {first.base}: average adapters of one "
                "base, or make ordinary checkpoints of them: python -m salsa merge"
            )
        if adapter.tensors.keys() != first.tensors.keys():
            raise UserError(
                f"{folder}: its head differs from that of {folders[0]}: average only checkpoints of one kind"
            )
    check_files(folders)
    total = weighted_sum([(adapters[folder], weight) for folder, weight in ingredients.items() if weight])
    write_adapter(total, out)
    for file in copied_files(folders[0]):
        shutil.copyfile(file, out / file.name)
    ranks = {str(folder): max((len(a) for a, _ in adapters[folder].pairs.values()), default=0) for folder in folders}
    return {"ranks_of_adapters": ranks, "rank": max(len(a) for a, _ in total.pairs.values())}


def as_written(tensor: Tensor, dtype: str | None) -> Tensor:
    """The soup's tensor for one of the first ingredient: with the soup's dtype and size in bytes."""
    if dtype is None or tensor.dtype not in FLOATS:
        return tensor
    name = NAMES[dtype]
    return replace(tensor, dtype=name, size=tensor.size // SIZES[tensor.dtype] * SIZES[name])


def dtypes_of(tensors: Iterable[Tensor]) -> list[str]:
    """The dtypes that occur, sorted."""
    return sorted({tensor.dtype for tensor in tensors})


def set_dtype(config: Path, dtype: str) -> None:
    """Write the weights' dtype into a config.json; vLLM loads them as that dtype."""
    settings = read_json(config)
    settings.pop("torch_dtype", None)
    config.write_text(json.dumps({**settings, "dtype": dtype}, indent=2) + "\n")


def parse_ingredients(texts: list[str]) -> dict[Path, float]:
    """Parse DIR=WEIGHT arguments; each folder may occur once."""
    ingredients: dict[Path, float] = {}
    for text in texts:
        folder, _, weight = text.rpartition("=")
        try:
            value = float(weight)
        except ValueError:
            value = math.nan
        if not folder or math.isnan(value):
            raise UserError(
                f"--ingredient {text}: write it as DIR=WEIGHT, for example checkpoints/sft/llama-mini/1=0.5"
            )
        if Path(folder) in ingredients:
            raise UserError(f"--ingredient {text}: {folder} is named twice: add up its weights")
        ingredients[Path(folder)] = value
    return ingredients


def run(arguments: argparse.Namespace) -> None:
    settings = load_settings(arguments.settings, Soup)
    ingredients = parse_ingredients(arguments.ingredient)
    check_ingredients(ingredients, arguments.allow_any_sum)
    weights = {str(path): weight for path, weight in ingredients.items()}
    numbered = {f"ingredient_{number}": path for number, path in enumerate(ingredients, 1)}
    provenance = Run("soup", {**settings.model_dump(), "weights": list(weights.values())}, numbered, {})
    with output_folder(arguments.out, provenance) as folder:
        provenance.extra = soup(
            ingredients, folder, settings.shard_size, arguments.allow_any_sum, settings.dtype, arguments.processes
        )
