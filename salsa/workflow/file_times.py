"""Restore modification times that a copy of the folder has lost.

Snakemake reruns a job whose input is newer than its output, and `cp -r` gives every file the time of the copy. Each
run.json records the inputs of its run and when the run took place. If it shows that an input is unchanged and was
complete before the run began, the input's modification time is set back to when the input was made.
"""

import calendar
import contextlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from salsa.runtime.provenance import RUN_FILE, input_id, run_file

TIMESTAMP = ".snakemake_timestamp"  # Snakemake's own file in an output folder; its time stands for the folder's
SLACK_SECONDS = 2.0  # records hold whole seconds
TOUCHED_SECONDS = 10.0  # Snakemake sets an output's time when it notices that the job has ended
Record = dict[str, Any]


def began(record: Record) -> float:
    """Start of the run, in seconds since 1970."""
    return calendar.timegm(time.strptime(record["started"], "%Y-%m-%dT%H:%M:%SZ"))


def ended(record: Record) -> float:
    """End of the run, in seconds since 1970."""
    return began(record) + float(record["wall_seconds"])


def _record(file: Path) -> Record | None:
    """Read a run.json; None if it is missing or unreadable."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        ended(record)
        return record if isinstance(record["inputs"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _snakemake_input(path: Path) -> Path:
    """The input as Snakemake sees it: the file itself, or the folder that holds it if a stage made the folder."""
    return path if run_file(path).exists() else path.parent


def _completed_at(path: Path, cache: dict[Path, float | None]) -> float | None:
    """When an output was complete, never earlier than its inputs; None without a record.

    Records hold whole seconds and may come from machines whose clocks differ, so a run's own end is not enough.
    """
    if path not in cache:
        record = _record(run_file(path))
        cache[path] = None if record is None else ended(record)
        if record is not None:
            times = [_completed_at(_snakemake_input(Path(entry["path"])), cache) for entry in record["inputs"].values()]
            limit = began(record) + SLACK_SECONDS
            cache[path] = max([ended(record), *(time for time in times if time is not None and time <= limit)])
    return cache[path]


def _clock(path: Path) -> Path:
    """The file whose modification time Snakemake uses for `path`."""
    return path / TIMESTAMP if (path / TIMESTAMP).exists() else path


def restore_times(folders: Iterable[Path]) -> list[Path]:
    """Restore the times of the inputs of all runs recorded below the folders; returns the inputs that changed."""
    restored: list[Path] = []
    cache: dict[Path, float | None] = {}
    seen: set[tuple[str, str]] = set()
    for file in sorted(file for folder in folders for file in folder.rglob(f"*{RUN_FILE}")):
        record = _record(file)
        if record is None:
            continue
        for entry in record["inputs"].values():
            recorded = Path(entry["path"])
            path = _snakemake_input(recorded)
            completed = _completed_at(path, cache)
            if completed is None or (str(recorded), entry["id"]) in seen or not recorded.exists():
                continue
            clock = _clock(path)
            late = clock.stat().st_mtime > completed + TOUCHED_SECONDS
            if late and completed <= began(record) + SLACK_SECONDS and input_id(recorded) == entry["id"]:
                # Without permission to set the time, Snakemake uses the one that is there.
                with contextlib.suppress(OSError):
                    os.utime(clock, (completed, completed))
                    restored.append(path)
            seen.add((str(recorded), entry["id"]))
    return restored
