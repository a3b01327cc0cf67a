"""The order in which runs were made, where a copy has lost it.

Snakemake makes an output again whose input is newer, and `cp -r` gives every file the time at which it was copied. A
run.json says what its run took, and when. Where that shows that an input is the one that was taken, and was whole
before the run began, the input's time is set back to when it was made.
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

TIMESTAMP = ".snakemake_timestamp"  # Snakemake's own, in a folder that a rule makes: the folder's time to it
SLACK_SECONDS = 2.0  # records have whole seconds
Record = dict[str, Any]


def began(record: Record) -> float:
    """When the run began, in seconds since 1970."""
    return calendar.timegm(time.strptime(record["started"], "%Y-%m-%dT%H:%M:%SZ"))


def ended(record: Record) -> float:
    """When the run ended, in seconds since 1970."""
    return began(record) + float(record["wall_seconds"])


def _record(file: Path) -> Record | None:
    """A run's record; None where there is none, or none that can be read."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        ended(record)
        return record if isinstance(record["inputs"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _whole(path: Path) -> Path:
    """What Snakemake knows of a run's input: itself, or the folder that a stage made and the run took a file of."""
    return path if run_file(path).exists() else path.parent


def _made(path: Path, known: dict[Path, float | None]) -> float | None:
    """When an output was whole, and not before what it was made from: records have whole seconds and many clocks."""
    if path not in known:
        record = _record(run_file(path))
        known[path] = None if record is None else ended(record)
        if record is not None:
            before = [_made(_whole(Path(entry["path"])), known) for entry in record["inputs"].values()]
            limit = began(record) + SLACK_SECONDS
            known[path] = max([ended(record), *(each for each in before if each is not None and each <= limit)])
    return known[path]


def _clock(path: Path) -> Path:
    """The file whose time Snakemake takes for that of `path`."""
    return path / TIMESTAMP if (path / TIMESTAMP).exists() else path


def restore_times(folders: Iterable[Path]) -> list[Path]:
    """The inputs whose times were set back, of all runs whose records lie below the folders."""
    restored: list[Path] = []
    known: dict[Path, float | None] = {}
    seen: set[tuple[str, str]] = set()
    for file in sorted(file for folder in folders for file in folder.rglob(f"*{RUN_FILE}")):
        record = _record(file)
        if record is None:
            continue
        for entry in record["inputs"].values():
            taken = Path(entry["path"])
            whole = _whole(taken)
            made = _made(whole, known)
            if made is None or (str(taken), entry["id"]) in seen or not taken.exists():
                continue
            clock = _clock(whole)
            late = clock.stat().st_mtime > made + SLACK_SECONDS
            if late and made <= began(record) + SLACK_SECONDS and input_id(taken) == entry["id"]:
                # Where it may not be set, Snakemake goes by the times that there are.
                with contextlib.suppress(OSError):
                    os.utime(clock, (made, made))
                    restored.append(whole)
            seen.add((str(taken), entry["id"]))
    return restored
