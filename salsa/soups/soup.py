"""Soups: weighted averages of checkpoints, tensor by tensor, computed in float32 and cast once; straight, or on an arc.

Tensors are streamed in small pieces from the ingredients' files to the soup's, so memory does not grow with the model.
No model is instantiated; tied embeddings are averaged once, as stored. A soup of LoRA adapters is an adapter.
"""

import argparse
import json
import math
import re
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from salsa.checkpoints.compatibility import check_files, check_tensors, copied_files
from salsa.checkpoints.floats import FLOATS
from salsa.checkpoints.shards import (
    SIZES,
    Tensor,
    begin_shard,
    is_adapter,
    plan_shards,
    read_json,
    read_tensors,
    shard_names,
    write_index,
)
from salsa.checkpoints.unused_tensors import without_unused
from salsa.config.naming import check_weights
from salsa.config.sections import Soup
from salsa.runtime.errors import UserError
from salsa.runtime.log import log
from salsa.runtime.outputs import output_folder
from salsa.runtime.provenance import Run
from salsa.runtime.settings import load_settings
from salsa.soups.averaging import Average, write_all

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


def parse_size(text: str) -> int:
    """Parse a size such as 4GB (powers of ten) or 500MiB (powers of two) into bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?", text.strip().upper())
    size = int(float(match[1]) * UNITS[match[2]]) if match and match[2] in UNITS else 0
    if size < 1:
        raise UserError(f"soup.shard_size: {text!r} is not a size: write for example 4GB or 500MiB")
    return size


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


def check_slerp(ingredients: Mapping[Path, float], base: Path) -> None:
    """Raise a UserError unless a spherical average from `base` is possible."""
    if any(weight < 0 for weight in ingredients.values()):
        raise UserError("--ingredient: a spherical average takes no negative weights: correct them")
    if not any(weight for folder, weight in ingredients.items() if folder != base):
        raise UserError(f"--ingredient: all weight is on {base}, from which changes are measured: name others")
    for folder in (*ingredients, base):
        if is_adapter(folder):
            raise UserError(
                f"{folder}: spherical averages of LoRA adapters are not supported: make ordinary checkpoints of them: "
                "python -m salsa merge"
            )


def soup(
    ingredients: Mapping[Path, float],
    out: Path,
    shard_size: str = "4GB",
    allow_any_sum: bool = False,
    dtype: str | None = None,
    processes: int = 1,
    slerp_from: Path | None = None,
    may_differ: Collection[str] = (),
) -> dict[str, Any]:
    """Write the weighted average of the checkpoints `ingredients` {folder: weight} into the existing folder `out`.

    With `slerp_from` it is the spherical average of their changes from this checkpoint (slerp.py), which may be an
    ingredient, too: its weight draws the result to it.

    Tokenizer and config come from the first ingredient. Float tensors get `dtype` (a key of `NAMES`), by default each
    tensor's dtype in the first ingredient. Ingredients of weight 0 are checked like the others and then ignored.
    Several `processes` share the tensors; the soup does not depend on their number. Keys of config.json that
    `may_differ` are those of the first ingredient. Returns facts for run.json: dtypes
    read and written, and tensors left out (unused_tensors.py).
    """
    check_ingredients(ingredients, allow_any_sum)
    limit = parse_size(shard_size)
    folders = list(ingredients)
    if slerp_from is not None:
        check_slerp(ingredients, slerp_from)
        folders = [*(folder for folder in folders if folder != slerp_from), slerp_from]
    if any(map(is_adapter, folders)):
        return adapter_soup(ingredients, out, may_differ)
    loaded = [without_unused(folder, read_tensors(folder)) for folder in folders]
    checkpoints = [tensors for tensors, _ in loaded]
    left_out = {str(folder): names for folder, (_, names) in zip(folders, loaded, strict=True) if names}
    for folder, names in left_out.items():
        log.warning(
            "%s: tensors left out of the soup because the model does not load them: %s", folder, ", ".join(names)
        )
    check_tensors(folders, checkpoints)
    check_files(folders, may_differ)
    by_folder = dict(zip(folders, checkpoints, strict=True))
    used = [(by_folder[folder], weight) for folder, weight in ingredients.items() if weight]
    base = None if slerp_from is None else by_folder[slerp_from]
    plan = plan_shards((as_written(tensor, dtype) for tensor in checkpoints[0].values()), limit)
    files = dict(zip(shard_names(len(plan)), plan, strict=True))
    written = [tensor for name, shard in files.items() for tensor in begin_shard(out / name, shard)]
    averages = [
        Average(
            tensor, [(tensors[tensor.name], weight) for tensors, weight in used], base[tensor.name] if base else None
        )
        for tensor in written
    ]
    write_all(averages, processes)
    if len(files) > 1:
        write_index(out, files)
    for file in copied_files(folders[0]):
        shutil.copyfile(file, out / file.name)
    if dtype is not None:
        set_dtype(out / "config.json", dtype)
    read = {str(folder): dtypes_of(tensors.values()) for folder, tensors in zip(folders, checkpoints, strict=True)}
    return {"dtypes_read": read, "dtypes_written": dtypes_of(t for shard in plan for t in shard), "left_out": left_out}


def adapter_soup(ingredients: Mapping[Path, float], out: Path, may_differ: Collection[str] = ()) -> dict[str, Any]:
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
    check_files(folders, may_differ)
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
    inputs = {f"ingredient_{number}": path for number, path in enumerate(ingredients, 1)}
    if arguments.slerp_from is not None:
        inputs["slerp_from"] = arguments.slerp_from
    provenance = Run("soup", {**settings.model_dump(), "weights": list(weights.values())}, inputs, {})
    with output_folder(arguments.out, provenance) as folder:
        provenance.extra = soup(
            ingredients,
            folder,
            settings.shard_size,
            arguments.allow_any_sum,
            settings.dtype,
            arguments.processes,
            arguments.slerp_from,
        )
