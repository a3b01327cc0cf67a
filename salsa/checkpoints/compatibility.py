"""Check that a soup's ingredients match: same tensors, config and tokenizer. Errors name the first difference."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from salsa.checkpoints.floats import FLOATS
from salsa.checkpoints.shards import ADAPTER_FILE, INDEX_FILE, SIZES, Tensor, read_json
from salsa.runtime.errors import UserError
from salsa.runtime.provenance import RUN_FILE

# Keys that do not change what the model computes.
IGNORED_KEYS = {
    "config.json": {
        "_name_or_path",
        "transformers_version",
        "torch_dtype",
        "dtype",
        "use_cache",
        "_attn_implementation",
    },
    "tokenizer_config.json": {"name_or_path", "model_max_length", "padding_side", "truncation_side", "tokenizer_file"}
    | {"processor_class", "transformers_version", "is_local", "local_files_only"},
    "tokenizer.json": {"truncation", "padding"},
}
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
)
TOKENIZER_BYTES = ("tokenizer.model", "merges.txt", "vocab.txt", "chat_template.jinja")
COPIED = (".json", ".jinja", ".model", ".txt")
NOT_COPIED = (INDEX_FILE, ADAPTER_FILE, RUN_FILE, "trainer_state.json")
ABSENT = object()


def copied_files(folder: Path) -> list[Path]:
    """Config and tokenizer files of a checkpoint."""
    return sorted(file for file in folder.iterdir() if file.suffix in COPIED and file.name not in NOT_COPIED)


def check_tensors(folders: list[Path], checkpoints: list[dict[str, Tensor]]) -> None:
    """Raise a UserError unless all checkpoints have tensors of the same names, shapes and dtypes.

    Float dtypes may differ.
    """
    first = checkpoints[0]
    for tensor in first.values():
        if tensor.dtype not in SIZES:
            raise UserError(
                f"{tensor.file}: tensor {tensor.name} is {tensor.dtype}, which cannot be averaged: store it as a float"
            )
    for folder, tensors in zip(folders[1:], checkpoints[1:], strict=True):
        for name in sorted(first.keys() ^ tensors.keys()):
            here, there = (folders[0], folder) if name in first else (folder, folders[0])
            raise UserError(f"{there}: no tensor {name}, which {here} has: average only checkpoints of one model")
        for name, tensor in first.items():
            for what in ("shape", "dtype"):
                one, other = getattr(tensor, what), getattr(tensors[name], what)
                if one != other and not {one, other} <= FLOATS.keys():
                    shown = [list(value) if isinstance(value, tuple) else value for value in (one, other)]
                    raise UserError(
                        f"tensor {name}: {what} {shown[0]} in {folders[0]}, {shown[1]} in {folder}: average only "
                        "checkpoints of one model and type"
                    )


def check_files(folders: list[Path], may_differ: Collection[str] = ()) -> None:
    """Raise a UserError unless all checkpoints have the same config and tokenizer.

    Keys of config.json that `may_differ` are not compared.
    """
    first = folders[0]
    for folder in folders[1:]:
        for name in ("config.json", *TOKENIZER_FILES):
            ignored = {*IGNORED_KEYS.get(name, ()), *(may_differ if name == "config.json" else ())}
            one, other = (_json(path / name, name == "config.json", ignored) for path in (first, folder))
            key, here, there = _first_difference(one, other)
            if here is not there:
                raise _disagree(name, key, first, here, folder, there)
        for name in TOKENIZER_BYTES:
            pair = [(path / name).read_bytes() if (path / name).exists() else ABSENT for path in (first, folder)]
            if pair[0] != pair[1]:
                raise UserError(
                    f"{name} differs between {first} and {folder}: average only checkpoints with one tokenizer"
                )


def _json(path: Path, required: bool, ignored: Collection[str]) -> Any:
    if not required and not path.exists():
        return {}
    return {key: value for key, value in read_json(path).items() if key not in ignored}


def _first_difference(one: Any, other: Any, key: str = "") -> tuple[str, Any, Any]:
    """Path of the first key at which two JSON values differ, and both values; (…, None, None) if they are equal."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in [*one, *(name for name in other if name not in one)]:
            below = f"{key}.{name}" if key else str(name)
            difference = _first_difference(one.get(name, ABSENT), other.get(name, ABSENT), below)
            if difference[1] is not difference[2]:
                return difference
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, pair in enumerate(zip(one, other, strict=True)):
            difference = _first_difference(*pair, f"{key}[{number}]")
            if difference[1] is not difference[2]:
                return difference
    elif one is not other and (type(one) is not type(other) or one != other):
        return key, one, other
    return key, None, None


def _disagree(name: str, key: str, first: Path, here: Any, folder: Path, there: Any) -> UserError:
    kind = "config" if name == "config.json" else "tokenizer"
    return UserError(
        f"{name}: {key} is {_shown(here)} in {first}, {_shown(there)} in {folder}: average only checkpoints with one "
        f"{kind}"
    )


def _shown(value: Any) -> str:
    if value is ABSENT:
        return "absent"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:60]}…"
