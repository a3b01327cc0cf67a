"""Soups: the weighted average of checkpoints, tensor by tensor, in float32, cast once.

Tensors are streamed in small pieces from the ingredients' safetensors files into the soup's, so that memory does not
grow with the models. No model class is built: tied embeddings are averaged once, as they are stored.
"""

import argparse
import contextlib
import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from salsa.agreement import check_files, check_tensors, copied_files
from salsa.errors import UserError
from salsa.naming import check_weights
from salsa.sections import Soup
from salsa.shards import (
    SIZES,
    Tensor,
    plan_shards,
    read_exactly,
    read_tensors,
    shard_names,
    write_index,
    write_shard,
)
from salsa.stage import Run, load_settings, output_folder

PIECE = 1 << 16  # elements: the float32 buffers of a piece stay in the processor's cache
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
UPPER = np.uint32(0xFFFF0000)
FLOATS = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}


def parse_size(text: str) -> int:
    """Bytes of a size such as 4GB (powers of ten) or 500MiB (powers of two)."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?", text.strip().upper())
    size = int(float(found[1]) * UNITS[found[2]]) if found and found[2] in UNITS else 0
    if size < 1:
        raise UserError(f"soup.shard_size: {text!r} is no size: write for example 4GB or 500MiB")
    return size


def widen(raw: np.ndarray, dtype: str, out: np.ndarray) -> None:
    """Stored elements, shape [n], as floats into `out`, shape [n], exactly; what `narrow` takes.

    A bfloat16 is the upper half of a float32 (numpy has no such type). Two of them are widened at a time as one
    32-bit word: the even elements fill the first half of `out`, the odd ones the second. n is even then.
    """
    if dtype != "BF16":
        out[:] = raw
        return
    pairs, bits, half = raw.view(np.uint32), out.view(np.uint32), len(raw) // 2
    np.left_shift(pairs, 16, out=bits[:half])
    np.bitwise_and(pairs, UPPER, out=bits[half:])


def narrow(values: np.ndarray, dtype: str) -> np.ndarray:
    """The inverse of `widen`: stored elements, shape [n], rounded to the nearest, ties to even."""
    if dtype != "BF16":
        return values.astype(FLOATS[dtype], copy=False)
    bits, half = values.view(np.uint32), len(values) // 2
    rounded = bits >> 16
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits
    even, odd = rounded[:half], rounded[half:]
    even >>= 16
    odd &= UPPER
    even |= odd
    return even.view(np.uint16)


class Averager:
    """The weighted average of tensors of one name, in pieces; files stay open and buffers are reused."""

    def __init__(self, stack: contextlib.ExitStack):
        self.stack = stack
        self.open: dict[Path, int] = {}
        self.raw = np.empty(PIECE * 8, np.uint8)
        self.sum, self.term = np.empty(PIECE, np.float32), np.empty(PIECE, np.float32)
        self.wide = np.empty(PIECE, np.float64), np.empty(PIECE, np.float64)

    def _read(self, tensor: Tensor, begin: int, size: int) -> memoryview:
        if tensor.file not in self.open:
            self.open[tensor.file] = self.stack.enter_context(tensor.file.open("rb", buffering=0)).fileno()
        piece = self.raw.data[:size]
        read_exactly(self.open[tensor.file], piece, tensor.start + begin, tensor.file)
        return piece

    def average(self, sources: list[tuple[Tensor, float]]) -> Iterator[memoryview]:
        """Pieces of sum_i weight_i * tensor_i, as bytes in the tensors' type, rounded once.

        The sum is float32 (float64 for float64 tensors) and starts from the first term, so that a single source of
        weight 1 comes out bit for bit. Integers and booleans are equal in all sources (`check_equal`): copied.
        """
        first = sources[0][0]
        width = SIZES[first.dtype]
        if first.dtype not in FLOATS:
            check_equal(sources, self._read)
        for begin in range(0, first.size, PIECE * width):
            size = min(PIECE * width, first.size - begin)
            if first.dtype not in FLOATS or (len(sources) == 1 and sources[0][1] == 1):
                yield self._read(first, begin, size)
            else:
                yield narrow(self._sum(sources, begin, size), first.dtype).data.cast("B")[:size]

    def _sum(self, sources: list[tuple[Tensor, float]], begin: int, size: int) -> np.ndarray:
        dtype = sources[0][0].dtype
        count = size // SIZES[dtype]
        count += count % 2  # the element more is 0 and is cut off again
        total, term = (buffer[:count] for buffer in (self.wide if dtype == "F64" else (self.sum, self.term)))
        for number, (tensor, weight) in enumerate(sources):
            self._read(tensor, begin, size)
            self.raw[size : count * SIZES[dtype]] = 0
            target = term if number else total
            widen(self.raw[: count * SIZES[dtype]].view(FLOATS[dtype]), dtype, target)
            target *= total.dtype.type(weight)
            if number:
                total += term
        return total


def check_equal(sources: list[tuple[Tensor, float]], read: Callable[[Tensor, int, int], memoryview]) -> None:
    """Integers and booleans have no average: they must be the same in all sources."""
    first = sources[0][0]
    for tensor, _ in sources[1:]:
        for begin in range(0, first.size, PIECE):
            size = min(PIECE, first.size - begin)
            if bytes(read(first, begin, size)) != bytes(read(tensor, begin, size)):
                raise UserError(
                    f"tensor {first.name} ({first.dtype}) differs between {first.file} and {tensor.file}, and integers "
                    "have no average: soup only checkpoints of one model"
                )


def check_ingredients(ingredients: Mapping[Path, float], allow_any_sum: bool) -> None:
    """Weights are finite, not all zero, and sum to 1 unless told otherwise."""
    for path, weight in ingredients.items():
        if not math.isfinite(weight):
            raise UserError(f"--ingredient {path}={weight}: the weight is not finite: give a number")
    if not any(ingredients.values()):
        raise UserError("--ingredient: no ingredient has a weight other than 0: give at least one")
    if not allow_any_sum:
        try:
            check_weights({str(path): weight for path, weight in ingredients.items()}, "--ingredient")
        except ValueError as error:
            raise UserError(f"{error}, or pass --allow-any-sum") from None


def soup(ingredients: Mapping[Path, float], out: Path, shard_size: str = "4GB", allow_any_sum: bool = False) -> None:
    """Writes the weighted average of the checkpoints `ingredients` (folder: weight) into the existing folder `out`.

    Ingredients of weight 0 must agree with the others too, and then take no part. Tokenizer and config are those of
    the first ingredient.
    """
    check_ingredients(ingredients, allow_any_sum)
    limit = parse_size(shard_size)
    folders = list(ingredients)
    found = [read_tensors(folder) for folder in folders]
    check_tensors(folders, found)
    check_files(folders)
    used = [
        (tensors, ingredients[folder]) for folder, tensors in zip(folders, found, strict=True) if ingredients[folder]
    ]
    plan = plan_shards(found[0].values(), limit)
    files = dict(zip(shard_names(len(plan)), plan, strict=True))
    with contextlib.ExitStack() as stack:
        averager = Averager(stack)
        for name, shard in files.items():
            sources = ([(tensors[tensor.name], weight) for tensors, weight in used] for tensor in shard)
            write_shard(out / name, shard, (piece for each in sources for piece in averager.average(each)))
    if len(files) > 1:
        write_index(out, files)
    for file in copied_files(folders[0]):
        shutil.copyfile(file, out / file.name)


def parse_ingredients(texts: list[str]) -> dict[Path, float]:
    """DIR=WEIGHT arguments; a folder may be named once."""
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ingredient", action="append", required=True, metavar="DIR=WEIGHT", help="a checkpoint; give several"
    )
    parser.add_argument("--settings", default="{}", help="the config's soup section: JSON or FILE.yaml#section")
    parser.add_argument("--allow-any-sum", action="store_true", help="weights need not sum to 1")
    parser.add_argument("--out", type=Path, required=True, help="folder of the soup")


def run(arguments: argparse.Namespace) -> None:
    settings = load_settings(arguments.settings, Soup)
    ingredients = parse_ingredients(arguments.ingredient)
    check_ingredients(ingredients, arguments.allow_any_sum)
    weights = {str(path): weight for path, weight in ingredients.items()}
    numbered = {f"ingredient_{number}": path for number, path in enumerate(ingredients, 1)}
    provenance = Run("soup", {**settings.model_dump(), "weights": list(weights.values())}, numbered, {})
    with output_folder(arguments.out, provenance) as folder:
        soup(ingredients, folder, settings.shard_size, arguments.allow_any_sum)
