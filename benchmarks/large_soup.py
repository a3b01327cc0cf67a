"""A soup of checkpoints at a hub model's full shape, compared with copying one: seconds, memory, and loading.

    python benchmarks/large_soup.py --folder FOLDER [--shape meta-llama/Llama-2-7b-hf] [--layers 2] \
        [--ingredients 3] [--processes 2]

Weights are random bfloat16 numbers in shards as on the hub. For Llama-2-7B's shape FOLDER needs room for four
checkpoints of 13.5 GB. Files are read from the disk, not from the page cache.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from random_model import CONFIGS, config_of
from random_shards import make_checkpoint
from transformers import AutoModelForCausalLM

from salsa.checkpoints.shards import Tensor, read_tensors
from salsa.runtime.provenance import RUN_FILE

TARGET_RATIO, TARGET_GB = 3.0, 1.0


def timed(reads: Iterable[Path], *command: str) -> float:
    """Seconds of a command that reads these folders from the disk, until its output is on the disk."""
    os.sync()
    for file in (file for folder in reads for file in folder.iterdir()):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    begin = time.perf_counter()
    # Through a shell: a process inherits its parent's peak memory, and this one's is large.
    subprocess.run(["sh", "-c", '"$@"; exit $?', "sh", *command], check=True)
    os.sync()
    return time.perf_counter() - begin


def read(tensor: Tensor, place: int) -> float:
    """One number of a bfloat16 tensor, from its bytes."""
    with tensor.file.open("rb") as file:
        file.seek(tensor.start + 2 * place)
        return float((np.frombuffer(file.read(2), np.uint16).astype(np.uint32) << 16).view(np.float32)[0])


def largest_error(soup: Path, sources: dict[Path, float], draws: int = 2000) -> float:
    """Largest difference of sampled numbers from the weighted sum, relative to half a unit in the last place."""
    draw, mixed = random.Random(1), read_tensors(soup)
    parts = {folder: read_tensors(folder) for folder in sources}
    worst = 0.0
    for name in draw.choices(sorted(mixed), k=draws):
        place = draw.randrange(mixed[name].size // 2)
        exact = sum(weight * read(parts[folder][name], place) for folder, weight in sources.items())
        worst = max(worst, abs(read(mixed[name], place) - exact) / max(abs(exact) * 2**-8, 1e-12))
    return worst


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--shape", choices=CONFIGS, default="meta-llama/Llama-2-7b-hf")
    parser.add_argument("--layers", type=int, help="number of layers (default: all)")
    parser.add_argument("--ingredients", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    config = config_of(arguments.shape, arguments.layers)
    weights = [0.5, *[0.5 / (arguments.ingredients - 1)] * (arguments.ingredients - 1)]
    sources = {arguments.folder / f"sft-{number}": weight for number, weight in enumerate(weights, 1)}
    for seed, folder in enumerate(sources):
        make_checkpoint(config, folder, seed)
        # As the workflow's stages leave it: without an id the soup would first hash all weights.
        (folder / RUN_FILE).write_text(json.dumps({"id": f"random-{seed}"}))
    first = next(iter(sources))
    index = json.loads((first / "model.safetensors.index.json").read_text())
    size = index["metadata"]["total_size"] / 1e9
    shards = sorted({name: (first / name).stat().st_size / 1e9 for name in index["weight_map"].values()}.items())
    print(f"a checkpoint: {size:.2f} GB in shards of {', '.join(f'{gb:.2f}' for _, gb in shards)} GB")
    copying = timed([first], "cp", "-r", str(first), str(arguments.folder / "copy"))
    shutil.rmtree(arguments.folder / "copy")
    soup = arguments.folder / "soup"
    given = [f"--ingredient={folder}={weight!r}" for folder, weight in sources.items()]
    command = [sys.executable, "-m", "salsa", "soup", *given, "--processes", str(arguments.processes)]
    mixing = timed(sources, *command, "--out", str(soup))
    peak = json.loads((soup / "run.json").read_text())["peak_memory_mb"] / 1e3
    print(f"copying one: {copying:.1f} s, {2 * size / copying:.2f} GB a second read and written")
    moved = (len(sources) + 1) * size
    print(f"soup of {len(sources)}: {mixing:.1f} s, {moved / mixing:.2f} GB a second read and written")
    print(
        f"ratio: {mixing / copying:.2f} (at most {TARGET_RATIO:g}); peak memory {peak:.2f} GB (at most {TARGET_GB:g})"
    )
    worst = largest_error(soup, sources)
    print(f"largest rounding of 2,000 numbers: {worst:.2f} of half a last place")
    model, info = AutoModelForCausalLM.from_pretrained(soup, dtype=torch.bfloat16, output_loading_info=True)
    wrong = {kind: names for kind, names in info.items() if names}
    print(f"transformers loads it: {model.num_parameters() / 1e9:.2f} billion parameters; {wrong or 'no key is off'}")
    return 0 if mixing / copying <= TARGET_RATIO and peak <= TARGET_GB and worst <= 1.001 and not wrong else 1


if __name__ == "__main__":
    sys.exit(main())
