"""Seconds and memory of a finished run's stages, from their run.json files.

python benchmarks/stages.py [FOLDER]    the folder that snakemake ran in (default: here)
"""

import json
import sys
from collections import defaultdict
from pathlib import Path


def stages(folder: Path) -> dict[str, list[dict]]:
    """Records by stage. A stage that writes several files has one record for each."""
    found = defaultdict(list)
    for root in ("checkpoints", "results", "data"):
        for path in sorted((folder / root).rglob("*run.json")):
            record = json.loads(path.read_text())
            found[record["stage"]].append(record)
    return found


def peak_megabytes(record: dict) -> float:
    """Peak GPU memory if the stage used a GPU, else the process's."""
    return record.get("peak_device_memory_mb") or record["peak_memory_mb"]


def table(found: dict[str, list[dict]]) -> str:
    """A Markdown table: files of each stage, seconds of the longest and of all, largest peak memory."""
    lines = ["| stage | outputs | seconds, longest | seconds, all | peak, GB |", "|---|---|---|---|---|"]
    for stage, records in sorted(found.items(), key=lambda item: min(record["started"] for record in item[1])):
        seconds = [record["wall_seconds"] for record in records]
        peak = max(map(peak_megabytes, records)) / 1024
        lines.append(f"| {stage} | {len(records)} | {max(seconds):.0f} | {sum(seconds):.0f} | {peak:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(stages(Path(sys.argv[1] if len(sys.argv) > 1 else "."))))
