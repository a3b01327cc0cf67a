"""Seconds and memory of a finished run's jobs, beside the estimates of `salsa plan`.

python benchmarks/planned.py --config config/mini.yaml [--folder FOLDER] [--device cpu] [--count 2]

FOLDER is where snakemake ran (default: here). Seconds are those of whole jobs, with imports, from Snakemake's records.
Memory is the GPU's if there is one, else the process's, from each stage's run.json.
"""

import argparse
import json
import os
import sys
from collections import defaultdict
from pathlib import Path

from eval.costs.assumed import assumed
from eval.planning.grid_plan import Plan
from salsa.config.config import load_config

sys.path.insert(0, str(Path(__file__).parent))
from stages import peak_megabytes, stages


def job_seconds(folder: Path) -> dict[str, list[float]]:
    """Seconds of each job that Snakemake ran, by rule. A job with several outputs has several records."""
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
