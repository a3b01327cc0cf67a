"""Convert stored floats to numpy arrays and back, and check them for NaN and infinity.

numpy has no bfloat16; a bfloat16 is the upper half of a float32.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from salsa.checkpoints.shards import SIZES, Tensor, read_exactly, read_tensors
from salsa.runtime.errors import UserError

PIECE = 1 << 16  # elements; the float32 buffers of a piece fit into the processor's cache
UPPER = np.uint32(0xFFFF0000)
FLOATS = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}
LARGEST = {
    "F64": float(np.finfo(np.float64).max),
    "F32": float(np.finfo(np.float32).max),
    "F16": 65504.0,
    "BF16": 2.0**128 - 2.0**120,
}


def widen(raw: np.ndarray, dtype: str, out: np.ndarray, paired: bool = False) -> None:
    """Convert stored elements, shape [n], exactly into the float array `out`, shape [n].

    With `paired`, two bfloat16 are converted at a time as one 32-bit word, which is faster. Even elements then fill the
    first half of `out` and odd ones the second; n has to be even, `out` float32, and `narrow` needs `paired` too.
    """
    if dtype != "BF16":
        out[:] = raw
    elif paired:
        pairs, bits, half = raw.view(np.uint32), out.view(np.uint32), len(raw) // 2
        np.left_shift(pairs, 16, out=bits[:half])
        np.bitwise_and(pairs, UPPER, out=bits[half:])
    else:
        out[:] = (raw.astype(np.uint32) << 16).view(np.float32)


def narrow(values: np.ndarray, dtype: str, paired: bool = False) -> np.ndarray:
    """The inverse of `widen`: round to nearest, ties to even; shape [n]. May overwrite `values`."""
    if dtype != "BF16":
        return values.astype(FLOATS[dtype], copy=False)
    bits, half = values.astype(np.float32, copy=False).view(np.uint32), len(values) // 2
    rounded = bits >> 16
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits
    if not paired:
        return (rounded >> 16).astype(np.uint16)
    even, odd = rounded[:half], rounded[half:]
    even >>= 16
    odd &= UPPER
    even |= odd
    return even.view(np.uint16)


def fits(values: np.ndarray, dtype: str) -> bool:
    """Whether all values, shape [n], are finite and stay finite as `dtype`.

    A NaN, an infinity or a value out of range makes the sum of squares NaN or too large. That sum is cheap; elements
    are checked one by one only if it does not decide.
    """
    largest = LARGEST[dtype]
    with np.errstate(over="ignore", invalid="ignore"):
        if np.dot(values, values) < np.minimum(largest * largest, np.finfo(values.dtype).max):
            return True
        return bool((np.abs(values) <= largest).all())


def pieces(tensor: Tensor) -> Iterator[np.ndarray]:
    """Yield a float tensor's elements in pieces of shape [n], as float32 (float64 if stored so)."""
    wide = np.empty(PIECE, np.float64 if tensor.dtype == "F64" else np.float32)
    width = SIZES[tensor.dtype]
    raw = np.empty(PIECE * width, np.uint8)
    with tensor.file.open("rb", buffering=0) as handle:
        for begin in range(0, tensor.size, PIECE * width):
            size = min(PIECE * width, tensor.size - begin)
            read_exactly(handle.fileno(), raw.data[:size], tensor.start + begin, tensor.file)
            values = wide[: size // width]
            widen(raw[:size].view(FLOATS[tensor.dtype]), tensor.dtype, values)
            yield values


def check_checkpoint(folder: Path, name: str | None = None) -> None:
    """Raise a UserError that names the first NaN or infinity in a checkpoint. `name` is its name in the message."""
    for tensor in read_tensors(folder).values():
        check_finite(tensor, Path(name or folder))


def check_finite(tensor: Tensor, folder: Path) -> None:
    """Raise a UserError that names the first NaN or infinity in a tensor; integer tensors pass."""
    if tensor.dtype not in FLOATS:
        return
    for number, values in enumerate(pieces(tensor)):
        if not fits(values, tensor.dtype):
            place = number * PIECE + int(np.flatnonzero(~np.isfinite(values))[0])
            raise UserError(
                f"{folder}: tensor {tensor.name} holds {values[place % PIECE]} (element {place}, in "
                f"{tensor.file.name}): the checkpoint is broken: rebuild it or copy it again"
            )
