"""Stage `perturb`: add random noise to a checkpoint, each tensor's as large as its distance to another checkpoint.

A control for the soup: it is as far from SFT 1 in every tensor, but in a random direction. That is not a change of low
rank, so the result is an ordinary checkpoint even if the given ones are LoRA adapters.
"""

import argparse
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from salsa.checkpoints.adapters import write_merged
from salsa.checkpoints.compatibility import check_files, check_tensors, copied_files
from salsa.checkpoints.floats import check_finite
from salsa.checkpoints.shards import INDEX_FILE, is_adapter, read_header, read_tensors, weight_files, write_index
from salsa.checkpoints.unused_tensors import without_unused
from salsa.runtime.errors import UserError
from salsa.runtime.outputs import output_folder, scratch
from salsa.runtime.provenance import Run
from salsa.runtime.seeds import derive_seed, run_seed


def moved(tensor: Tensor, like: Tensor, generator: torch.Generator) -> Tensor:
    """`tensor` plus Gaussian noise with the norm of like - tensor; computed in float32, cast once. Integers stay."""
    if not tensor.is_floating_point():
        return tensor
    start = tensor.float()
    distance = (like.float() - start).norm()
    noise = torch.randn(tensor.shape, generator=generator)
    return (start + noise * (distance / noise.norm())).to(tensor.dtype)


def perturb(of: Path, like: Path, seed: int, draw: int, out: Path) -> None:
    """Write the perturbed checkpoint into the existing folder `out`. The noise of each tensor is seeded by its name."""
    start, _ = without_unused(of, read_tensors(of))
    places, _ = without_unused(like, read_tensors(like))
    check_tensors([of, like], [start, places])
    check_files([of, like])
    for file in weight_files(of):
        result = {}
        with safe_open(file, "pt") as source:
            for entry in (entry for entry in read_header(file) if entry.name in start):
                with safe_open(places[entry.name].file, "pt") as other:
                    generator = torch.Generator().manual_seed(derive_seed(seed, "perturb", draw, entry.name))
                    result[entry.name] = moved(source.get_tensor(entry.name), other.get_tensor(entry.name), generator)
                if not result[entry.name].isfinite().all():
                    check_finite(entry, of)
                    check_finite(places[entry.name], like)
                    raise UserError(f"tensor {entry.name}: the perturbed values are too large for {entry.dtype}")
        save_file(result, out / file.name, metadata={"format": "pt"})
    for file in copied_files(of):
        shutil.copyfile(file, out / file.name)
    if (of / INDEX_FILE).exists():
        write_index(out, {file.name: read_header(file) for file in sorted(out.glob("*.safetensors"))})


def ordinary(folder: Path, work: Path) -> Path:
    """The folder of an ordinary checkpoint; an adapter is first written as one into `work`."""
    if not is_adapter(folder):
        return folder
    work.mkdir()
    write_merged(folder, work)
    return work


def run(arguments: argparse.Namespace) -> None:
    inputs = {"of": arguments.of, "like": arguments.like}
    record = Run("perturb", {}, inputs, {"seed": arguments.seed, "draw": arguments.draw, "run": arguments.run})
    with output_folder(arguments.out, record) as folder, scratch(arguments.out) as work:
        of, like = ordinary(arguments.of, work / "of"), ordinary(arguments.like, work / "like")
        perturb(of, like, run_seed(arguments.seed, arguments.run), arguments.draw, folder)
