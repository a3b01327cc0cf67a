"""Time and memory of a soup of two checkpoints (1 GB together), compared with copying: python benchmarks/soup.py

Both run with a warm page cache. A soup reads 1 GB and writes half of it; the copy reads and writes 1 GB. Memory is the
peak of a process that makes the soup minus that of one that only imports the same modules.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from salsa.checkpoints.shards import Tensor, begin_shard, plan_shards, shard_names, write_index, write_tensor

TARGET_RATIO, TARGET_MB = 3.0, 300.0
IMPORT = "import resource, sys; from pathlib import Path; from salsa.soups.soup import soup\n"
PEAK = "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)\n"
SOUP = "soup({Path(sys.argv[1]): 0.5, Path(sys.argv[2]): 0.5}, Path(sys.argv[3]), sys.argv[4])\n"


def make_checkpoint(folder: Path, megabytes: int, shard_mb: int, seed: int) -> None:
    """Random bfloat16 matrices of 32 MB, and one of a fifth of the whole, like an embedding."""
    folder.mkdir(parents=True)
    embedding = megabytes // 5
    sizes = [embedding, *[32] * ((megabytes - embedding) // 32)]
    tensors = [Tensor(f"layer.{i}", "BF16", (mb << 9, 1024), folder, 0, mb << 20) for i, mb in enumerate(sizes)]
    plan = plan_shards(tensors, shard_mb << 20)
    files = dict(zip(shard_names(len(plan)), plan, strict=True))
    generator = np.random.default_rng(seed)
    for name, shard in files.items():
        for tensor in begin_shard(folder / name, shard):
            # The upper halves of normal float32 numbers are bfloat16 numbers.
            pieces = (
                (generator.standard_normal(1 << 19, dtype=np.float32).view(np.uint32) >> 16).astype(np.uint16).data
                for _ in range(tensor.size >> 20)
            )
            write_tensor(tensor, pieces)
    write_index(folder, files)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))


def copy(sources: list[Path], out: Path) -> float:
    out.mkdir()
    start = time.perf_counter()
    subprocess.run(["cp", "-r", *map(str, sources), str(out)], check=True)
    return time.perf_counter() - start


def python(code: str, *arguments: str) -> tuple[float, float]:
    """Wall seconds and peak memory in MB of a new interpreter."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return time.perf_counter() - start, float(done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--megabytes", type=int, default=512, help="size of one checkpoint")
    parser.add_argument("--shard", type=int, default=200, help="MB of a shard")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        sources = [Path(name) / "one", Path(name) / "two"]
        for seed, source in enumerate(sources):
            make_checkpoint(source, arguments.megabytes, arguments.shard, seed)
        copies, soups, starts, peaks, floors = [], [], [], [], []
        for _ in range(arguments.rounds):
            # Flush the disk before each measurement: writing back earlier pages would slow the next one.
            os.sync()
            copies.append(copy(sources, Path(name) / "copy"))
            shutil.rmtree(Path(name) / "copy")
            os.sync()
            (Path(name) / "soup").mkdir()
            paths = [*map(str, sources), str(Path(name) / "soup"), f"{arguments.shard}MiB"]
            seconds, peak = python(IMPORT + SOUP + PEAK, *paths)
            shutil.rmtree(Path(name) / "soup")
            start, floor = python(IMPORT + PEAK)
            soups.append(seconds)
            starts.append(start)
            peaks.append(peak)
            floors.append(floor)
    ratio = statistics.median(soups) / statistics.median(copies)
    memory = max(peaks) - min(floors)
    print(f"copy: median {statistics.median(copies):.2f} s, best {min(copies):.2f} s")
    print(f"soup: median {statistics.median(soups):.2f} s, best {min(soups):.2f} s (whole process)")
    print(f"start: median {statistics.median(starts):.2f} s of it are the interpreter and imports")
    print(f"ratio: {ratio:.2f} (at most {TARGET_RATIO:g})")
    print(f"memory: {memory:.0f} MB above the interpreter and imports (at most {TARGET_MB:g})")
    return 0 if ratio <= TARGET_RATIO and memory <= TARGET_MB else 1


if __name__ == "__main__":
    sys.exit(main())
