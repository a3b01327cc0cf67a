"""LoRA adapters as checkpoints: changes of the weights of a base checkpoint.

A folder has an adapter in peft's files (adapter_config.json, adapter_model.safetensors), and config and tokenizer like
any checkpoint. The base's path is relative to the folder, so both can be moved together.
"""

import itertools
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from salsa.checkpoints.compatibility import copied_files
from salsa.checkpoints.shards import (
    ADAPTER_FILE,
    is_adapter,
    read_header,
    read_json,
    read_tensors,
    weight_files,
    write_index,
)
from salsa.checkpoints.unused_tensors import HEAD
from salsa.runtime.errors import UserError

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."  # of peft's names
UNSUPPORTED = ("use_dora", "use_rslora", "lora_bias", "fan_in_fan_out")
REBUILD = "rebuild the checkpoint or copy it again"


@dataclass(frozen=True)
class Adapter:
    """Changes of the weights of the checkpoint `base`.

    pairs: by a linear layer's name, A [r, in] and B [out, r] in float32; the layer's weight [out, in] becomes W + B A.
    tensors: whole tensors that the base lacks, by name: the head of a reward model.
    """

    base: Path
    pairs: Mapping[str, tuple[Tensor, Tensor]]
    tensors: Mapping[str, Tensor]

    def changed(self, name: str, weight: Tensor) -> Tensor:
        """The tensor called `name`: with its change, in float32, or as it is."""
        pair = self.pairs.get(name.removesuffix(".weight"))
        if pair is None:
            return weight
        a, b = (part.to(weight.device) for part in pair)
        return weight.float() + b @ a


def base_of(folder: Path) -> Path:
    """The checkpoint that an adapter changes; an ordinary checkpoint is its own base."""
    if not is_adapter(folder):
        return folder.resolve()
    base = (folder / str(read_json(folder / ADAPTER_FILE).get("base_model_name_or_path"))).resolve()
    if not base.is_dir():
        raise UserError(f"{folder / ADAPTER_FILE}: its base {base} is not there: copy it, too, or correct the path")
    return base


def read_adapter(folder: Path) -> Adapter:
    """The adapter of a checkpoint; of an ordinary one an adapter that changes nothing."""
    base = base_of(folder)
    if not is_adapter(folder):
        return Adapter(base, {}, {})
    config = read_json(folder / ADAPTER_FILE)
    if (kind := config.get("peft_type")) != "LORA":
        raise UserError(f"{folder / ADAPTER_FILE}: an adapter of type {kind}: use one of type LORA")
    if names := [name for name in UNSUPPORTED if config.get(name)]:
        raise UserError(f"{folder / ADAPTER_FILE}: {names[0]} is set: use plain LoRA")
    try:
        stored = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder / WEIGHTS}: cannot read it ({error}): {REBUILD}") from None
    tensors = {name.removeprefix(PREFIX): tensor.float() for name, tensor in stored.items()}
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise UserError(f"{folder / WEIGHTS}: {name} holds NaN or infinity: {REBUILD}")
    pairs = {}
    for name in sorted(name.removesuffix(".lora_A.weight") for name in tensors if name.endswith(".lora_A.weight")):
        a, b = tensors.pop(f"{name}.lora_A.weight"), tensors.pop(f"{name}.lora_B.weight")
        alpha = config.get("alpha_pattern", {}).get(name, config["lora_alpha"])
        pairs[name] = (a, b * (alpha / len(a)))
    of_base = read_tensors(base)
    for name, (a, b) in pairs.items():
        weight = of_base.get(f"{name}.weight")
        if weight is None or weight.shape != (len(b), a.shape[1]):
            raise UserError(f"{folder / WEIGHTS}: changes {name}, which {base} does not have in this shape: {REBUILD}")
    return Adapter(base, pairs, tensors)


def write_adapter(adapter: Adapter, folder: Path) -> None:
    """Write an adapter into `folder`. Layers may differ in rank. A scale is part of B, so alpha is the rank."""
    ranks = {name: len(a) for name, (a, _) in adapter.pairs.items()}
    largest = max(ranks.values())
    others = {name: rank for name, rank in ranks.items() if rank != largest}
    config = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if adapter.tensors else "CAUSAL_LM",
        "base_model_name_or_path": os.path.relpath(adapter.base, folder.resolve()),
        "r": largest,
        "lora_alpha": largest,
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": sorted(adapter.pairs),
        "modules_to_save": sorted(name.rpartition(".")[0] for name in adapter.tensors) or None,
        "inference_mode": True,
    }
    (folder / ADAPTER_FILE).write_text(json.dumps(config, indent=2) + "\n")
    stored = {f"{name}.lora_A.weight": a for name, (a, _) in adapter.pairs.items()}
    stored |= {f"{name}.lora_B.weight": b for name, (_, b) in adapter.pairs.items()}
    stored |= adapter.tensors
    save_file(
        {PREFIX + name: tensor.contiguous() for name, tensor in stored.items()},
        folder / WEIGHTS,
        metadata={"format": "pt"},
    )


def copy_checkpoint(source: Path, target: Path) -> None:
    """Copy a checkpoint; an adapter's path to its base is corrected."""
    shutil.copytree(source, target)
    if is_adapter(source):
        write_adapter(read_adapter(source), target)


def weighted_sum(parts: Sequence[tuple[Adapter, float]]) -> Adapter:
    """The adapter whose change is sum_i weight_i change_i: B and A stacked, so of rank sum_i r_i.

    All adapters have the same base and the same whole tensors.
    """
    pairs = {}
    for name in sorted({name for adapter, _ in parts for name in adapter.pairs}):
        having = [(*adapter.pairs[name], weight) for adapter, weight in parts if name in adapter.pairs]
        pairs[name] = torch.cat([a for a, _, _ in having]), torch.cat([weight * b for _, b, weight in having], 1)
    first = parts[0][0]
    tensors = {
        name: torch.stack([weight * adapter.tensors[name] for adapter, weight in parts]).sum(0)
        for name in first.tensors
    }
    return replace(first, pairs=pairs, tensors=tensors)


def _merged(folder: Path, dtype: torch.dtype | None) -> Iterator[tuple[str, str, Tensor]]:
    adapter = read_adapter(folder)
    for file in weight_files(adapter.base):
        with safe_open(file, "pt") as tensors:
            names = tensors.keys()
            for name in names:
                if name == HEAD and adapter.tensors:
                    continue  # a reward model has its own head
                tensor = tensors.get_tensor(name)
                kept = tensor.dtype if dtype is None or not tensor.is_floating_point() else dtype
                yield file.name, name, adapter.changed(name, tensor).to(kept)
    for name, tensor in adapter.tensors.items():
        yield file.name, name, tensor.to(dtype or tensor.dtype)


def merged_tensors(folder: Path, dtype: torch.dtype | None = None) -> Iterator[tuple[str, Tensor]]:
    """Yield all tensors of a checkpoint by name, with an adapter's changes, one at a time.

    A changed float tensor is computed in float32 and rounded once, to `dtype` or the dtype of its base.
    """
    return ((name, tensor) for _, name, tensor in _merged(folder, dtype))


def write_merged(folder: Path, out: Path, dtype: torch.dtype | None = None) -> None:
    """Write an adapter's checkpoint as an ordinary one into the existing folder `out`, a file of the base at a time."""
    for name, group in itertools.groupby(_merged(folder, dtype), lambda entry: entry[0]):
        save_file({key: tensor.contiguous() for _, key, tensor in group}, out / name, metadata={"format": "pt"})
    for file in copied_files(folder):
        shutil.copyfile(file, out / file.name)
    files = sorted(out.glob("*.safetensors"))
    if len(files) > 1:
        write_index(out, {file.name: read_header(file) for file in files})
