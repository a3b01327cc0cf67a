"""Read and write safetensors files as byte streams, without torch and without memory mapping.

Format: header length (8 bytes, little endian), JSON header {name: {dtype, shape, data_offsets}}, then the tensors'
bytes without gaps. Files are read in pieces because mapped pages count as the process's memory.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from salsa.runtime.errors import UserError

INDEX_FILE = "model.safetensors.index.json"
WEIGHTS_FILE = "model.safetensors"
ADAPTER_FILE = "adapter_config.json"  # of a checkpoint that only changes another one (adapters.py)
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
ALIGNMENT = 8


@dataclass(frozen=True)
class Tensor:
    """A tensor's location: `start` and `size` in bytes within `file`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    size: int


def read_json(path: Path) -> dict[str, Any]:
    """Read a checkpoint's JSON file; a UserError if it is missing or broken."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{path}: cannot read it: {error.strerror}; rebuild the checkpoint, or correct the path"
        ) from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}): rebuild the checkpoint") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected a JSON object, not {type(data).__name__}: rebuild the checkpoint")
    return data


def is_adapter(folder: Path) -> bool:
    """Whether a checkpoint is an adapter of another one."""
    return (folder / ADAPTER_FILE).is_file()


def weight_map(folder: Path) -> dict[str, str] | None:
    """The index's map from tensor to shard file; None for a checkpoint in a single file."""
    if not (folder / INDEX_FILE).exists():
        return None
    names = read_json(folder / INDEX_FILE).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise UserError(f"{folder / INDEX_FILE}: no weight_map in it: rebuild the checkpoint")
    return names


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, sorted by name; a UserError if one is missing."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such checkpoint folder: run the stage that makes it, or correct the path")
    names = weight_map(folder)
    files = [folder / name for name in sorted(set(names.values()))] if names else [folder / WEIGHTS_FILE]
    for file in files:
        if not file.is_file():
            raise UserError(f"{file}: this shard is missing: copy it again, or rebuild the checkpoint {folder}")
    return files


def read_header(file: Path) -> list[Tensor]:
    """The tensors of a safetensors file in byte order; a UserError if the file is truncated."""
    actual = file.stat().st_size
    with file.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        try:
            header = json.loads(handle.read(length)) if 8 + length <= actual else None
        except ValueError:
            header = None
    if not isinstance(header, dict):
        raise UserError(f"{file}: not a complete safetensors file: copy it again, or rebuild the checkpoint")
    header.pop("__metadata__", None)
    tensors = []
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors.append(Tensor(name, entry["dtype"], tuple(entry["shape"]), file, 8 + length + begin, end - begin))
        if 8 + length + end > actual:
            raise UserError(f"{file}: truncated within tensor {name}: copy it again, or rebuild the checkpoint")
    return sorted(tensors, key=lambda tensor: tensor.start)


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint by name; a UserError if the index names a tensor that no shard holds."""
    tensors = {tensor.name: tensor for file in weight_files(folder) for tensor in read_header(file)}
    for name, file in (weight_map(folder) or {}).items():
        if name not in tensors or tensors[name].file.name != file:
            raise UserError(f"{folder / file}: tensor {name} is missing, which the index names: rebuild the checkpoint")
    return tensors


def plan_shards(tensors: Iterable[Tensor], limit: int) -> list[list[Tensor]]:
    """Split tensors, in order, into shards of at most `limit` bytes (a larger tensor gets its own shard)."""
    shards: list[list[Tensor]] = [[]]
    filled = 0
    for tensor in tensors:
        if shards[-1] and filled + tensor.size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(tensor)
        filled += tensor.size
    return [_aligned(shard) for shard in shards]


def _aligned(shard: list[Tensor]) -> list[Tensor]:
    """Sort by element size, largest first, so that every tensor starts at a multiple of its element size."""
    return sorted(shard, key=lambda tensor: -SIZES.get(tensor.dtype, 1))


def begin_shard(file: Path, shard: list[Tensor]) -> list[Tensor]:
    """Write a safetensors file's header and leave room for its tensors; returns their locations in the file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    positions, position = [], 0
    for tensor in shard:
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [position, position + tensor.size],
        }
        positions.append(position)
        position += tensor.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    first = 8 + len(text)
    with file.open("wb", buffering=0) as handle:
        write_all(handle, memoryview(len(text).to_bytes(8, "little") + text))
        handle.truncate(first + position)
    return [replace(tensor, file=file, start=first + place) for tensor, place in zip(shard, positions, strict=True)]


def write_tensor(tensor: Tensor, chunks: Iterable[memoryview]) -> None:
    """Write a tensor's bytes, which `chunks` yields, to its location in a file that `begin_shard` began."""
    with tensor.file.open("r+b", buffering=0) as handle:
        handle.seek(tensor.start)
        for chunk in chunks:
            write_all(handle, chunk)


def write_all(handle: BinaryIO, data: memoryview) -> None:
    """Write all of `data`; one unbuffered write may take only part of it."""
    data = data.cast("B")
    while data:
        data = data[handle.write(data) :]


def shard_names(count: int) -> list[str]:
    """File names as transformers expects them: numbered, except for a single file."""
    return [WEIGHTS_FILE] if count == 1 else [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]


def write_index(folder: Path, files: Mapping[str, list[Tensor]]) -> None:
    """Write the index of a sharded checkpoint."""
    total = sum(tensor.size for shard in files.values() for tensor in shard)
    names = {tensor.name: file for file, shard in files.items() for tensor in shard}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(names.items()))}
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n")


def read_exactly(descriptor: int, buffer: memoryview, position: int, file: Path) -> None:
    """Fill `buffer` with the bytes of the file from `position` on."""
    while buffer:
        count = os.preadv(descriptor, [buffer], position)
        if count == 0:
            raise UserError(f"{file}: became shorter while being read: rebuild the checkpoint")
        buffer, position = buffer[count:], position + count
