"""Seconds and memory that Snakemake needs to plan 10 models x 12 methods x 3 replicates x 5 seeds x 3 benchmarks.

    python benchmarks/large_grid.py [--folder FOLDER] [--profile]

The grid is config/paper.yaml with each model several times, and PPO with other betas as further methods, each compared
with PPO. FOLDER keeps the config; --profile prints where the time goes.
"""

import argparse
import cProfile
import io
import os
import pstats
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
MODELS, METHODS, SEEDS = 10, 12, 5
MOST = 25  # lines of a profile


def config() -> dict[str, Any]:
    grid = yaml.safe_load((ROOT / "config/paper.yaml").read_text().replace("data/paper/", "data/large/"))
    known = list(grid["models"].items())
    grid["models"] = {f"{name}-{number}": model for number, (name, model) in enumerate((known * MODELS)[:MODELS])}
    for number in range(METHODS - len(grid["methods"])):
        grid["methods"][f"ppo-{number}"] = {
            **grid["methods"]["ppo"],
            "settings": {"beta": round(0.01 * (number + 1), 2)},
        }
    grid["rl_seeds"] = list(range(1, SEEDS + 1))
    grid["comparisons"] = {f"{name}_vs_ppo": {"a": name, "b": "ppo"} for name in grid["methods"] if name != "ppo"}
    return grid | {"grid": "large", "tables": {"headline": "salsa_vs_ppo"}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "large.yaml").write_text(yaml.safe_dump(config(), sort_keys=False))
    options = [
        "--snakefile",
        str(ROOT / "Snakefile"),
        "--workflow-profile",
        str(ROOT / "profiles/default"),
        "--dry-run",
    ]
    options += ["--quiet", "rules", "--cores", "1", "--configfile", str(folder / "large.yaml")]
    if arguments.profile:
        return profiled(options)
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "snakemake", *options], cwd=ROOT, capture_output=True, text=True)
    seconds, used = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    [jobs] = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("total ")}
    of_cpu = used.ru_utime + used.ru_stime
    print(f"{jobs} jobs: {seconds:.1f} s, {of_cpu:.1f} s of a CPU, {used.ru_maxrss / 2**20:.2f} GiB")


def profiled(options: list[str]) -> None:
    """Plan in this process and print the functions that take most time."""
    from snakemake.cli import main as snakemake

    os.chdir(ROOT)
    watch = cProfile.Profile()
    sys.argv = ["snakemake", *options]
    try:
        watch.runcall(snakemake)
    except SystemExit:
        text = io.StringIO()
        pstats.Stats(watch, stream=text).sort_stats("cumulative").print_stats(MOST)
        pstats.Stats(watch, stream=text).sort_stats("tottime").print_stats(MOST)
        print(text.getvalue())


if __name__ == "__main__":
    main()
