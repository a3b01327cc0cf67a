"""Seconds and memory of a finished run's jobs, beside what `salsa plan` says of them.

python benchmarks/planned.py --config config/mini.yaml [--folder FOLDER] [--device cpu] [--count 2]

FOLDER is where snakemake ran (default: here). Seconds are of whole jobs, imports included, as Snakemake has
them; memory is of the GPU where there is one, else of the process, from the run.json that each stage leaves.
"""

import argparse
import json
import os
import sys
from collections import defaultdict
from pathlib import Path

from eval.planning.assumed import assumed
from eval.planning.plan import Plan
from salsa.config.config import load_config

sys.path.insert(0, str(Path(__file__).parent))
from stages import peak_megabytes, stages


def job_seconds(folder: Path) -> dict[str, list[float]]:
    """Of each job that Snakemake ran, by rule; a job that writes several files has a record with each."""
    found: dict[str, dict[float, float]] = defaultdict(dict)
    for path in (folder / ".snakemake/metadata").rglob("*"):
        if path.is_file():
            record = json.loads(path.read_text())
            found[record["rule"]][record["starttime"]] = record["endtime"]
    return {rule: [end - start for start, end in sorted(times.items())] for rule, times in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, nargs="+", required=True)
    parser.add_argument("--folder", type=Path, default=Path())
    parser.add_argument("--device", choices=sorted(assumed().devices), default="cpu")
    parser.add_argument("--count", type=int, default=2)
    arguments = parser.parse_args()
    config = load_config(*arguments.config)
    os.chdir(arguments.folder)
    plan = Plan.of(config, assumed().devices[arguments.device], arguments.count)
    memory = {stage: max(map(peak_megabytes, records)) * 2**20 for stage, records in stages(Path()).items()}
    print("| rule | jobs | seconds, mean | planned | ratio | peak, GB | planned | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for rule, seconds in job_seconds(Path()).items():
        runs = [run for run in plan.runs.values() if run.job.rule == rule]
        mean, planned = sum(seconds) / len(seconds), sum(run.seconds for run in runs) / max(1, len(runs))
        line = f"| {rule} | {len(seconds)} | {mean:.2f} | {planned:.2f} | {planned / mean:.2f} |"
        if expected := max((run.memory for run in runs), default=0.0):
            peak = memory[rule]
            line += f" {peak / 1e9:.2f} | {expected / 1e9:.2f} | {expected / peak:.2f} |"
        print(line)


if __name__ == "__main__":
    main()
