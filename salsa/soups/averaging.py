"""Weighted sums of tensors, streamed in small pieces from files to a file, by one process or several.

Memory does not grow with the model. Sums are float32 and rounded once.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from salsa.checkpoints import floats
from salsa.checkpoints.floats import FLOATS
from salsa.checkpoints.shards import SIZES, Tensor, read_exactly, write_tensor
from salsa.runtime.errors import UserError
from salsa.soups.slerp import on_arc

BATCH = 8  # tensors that a process averages before it takes more
Sources = list[tuple[Tensor, float]]  # an average's tensors and their weights


@dataclass(frozen=True)
class Average:
    """A tensor of a begun file, and what it is the average of; with `base`, of the changes from there, on their arc."""

    tensor: Tensor
    sources: Sources
    base: Tensor | None = None


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


def write_all(averages: Sequence[Average], processes: int) -> None:
    """Write tensors into begun files. Processes share them; the result does not depend on their number."""
    if processes == 1:
        write_averages(averages)
        return
    batches = [averages[begin : begin + BATCH] for begin in range(0, len(averages), BATCH)]
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), end_with_parent) as pool:
        list(pool.map(write_averages, batches))  # raises the first batch's error


def write_averages(averages: Sequence[Average]) -> None:
    """Write tensors into begun files, each as the average of its sources."""
    with contextlib.ExitStack() as stack:
        averager = Averager(stack)
        for average in averages:
            sources = average.sources if average.base is None else on_arc(average.base, average.sources)
            write_tensor(average.tensor, averager.average(sources, average.tensor.dtype))


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
