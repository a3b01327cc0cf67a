"""Commits, package versions and machines of the runs behind a grid's results.

A grid may be continued with another commit, torch version or machine, and keeps its finished outputs. Its cells then
differ in more than the method, and the tables say which.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from salsa.runtime.errors import UserError
from salsa.runtime.provenance import run_file

MACHINE = ("device", "processor", "vector instructions", "threads")
OF_STAGES = ("device", "threads")
COMMIT = "commit"
COLUMNS = ["property", "value", "runs", "of", "paths"]
SHOWN = 3
Found = dict[str, dict[str, list[str]]]


def records(files: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """The run.json of each file and, recursively, of its inputs, by path; missing ones are skipped."""
    collected: dict[str, dict[str, Any]] = {}
    queue, seen = list(files), set()
    while queue:
        path = queue.pop()
        # The run.json of a file in a stage's output folder lies in that folder.
        output = path if run_file(path).exists() else path.parent
        if path in seen or str(output) in collected or not run_file(output).exists():
            continue
        seen.add(path)
        try:
            record = json.loads(run_file(output).read_text(encoding="utf-8"))
            queue += [Path(entry["path"]) for entry in record["inputs"].values()]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{run_file(output)}: not a run record ({error}): rebuild {output}") from None
        collected[str(output)] = record
    return collected


def properties(record: Mapping[str, Any]) -> dict[str, str]:
    """Commit, versions and machine of a run, as text."""
    machine = {name: record.get(name.replace(" ", "_")) for name in MACHINE}
    commit = str(record.get("git_commit") or "no checkout")
    # Shorten the hash, but keep the mark of changed code behind it.
    values = {COMMIT: re.sub(r"^([0-9a-f]{12})[0-9a-f]{28}", r"\1", commit), **record.get("versions", {}), **machine}
    return {name: str(value) for name, value in values.items() if value is not None}


def made_with(files: Iterable[Path]) -> Found:
    """{property: {value: sorted paths of the runs that have it}}; the most common value of a property comes first."""
    found: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path, record in sorted(records(files).items()):
        for name, value in properties(record).items():
            found[name][value].append(path)
    order = [name for name in (COMMIT, *MACHINE) if name in found]
    order += sorted(found.keys() - set(order))
    return {name: dict(sorted(found[name].items(), key=lambda entry: (-len(entry[1]), entry[0]))) for name in order}


def differing(found: Found) -> list[str]:
    """Properties whose values differ between runs. Devices and threads may differ between stages and do not count."""
    return [name for name, values in found.items() if len(values) > 1 and name not in OF_STAGES]


def table(found: Found) -> pd.DataFrame:
    """One row per value, for the machine's properties and for those that differ.

    The most common value of a property has no paths, which may be thousands: it has all that the others lack.
    """
    differ = differing(found)
    rows = []
    for name, values in found.items():
        if name in differ or name in MACHINE:
            runs = sum(map(len, values.values()))
            for number, (value, paths) in enumerate(values.items()):
                rows.append((name, value, len(paths), runs, ";".join(paths) if number else ""))
    return pd.DataFrame(rows, columns=COLUMNS)


def shown(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns of runs.md: for each value but the most common one, its first paths."""
    frame = frame.copy()
    common = ~frame.duplicated("property")
    alone = ~frame.duplicated("property", keep=False)
    texts = []
    for first, only, paths in zip(common, alone, frame["paths"].str.split(";"), strict=True):
        more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
        texts.append("all" if only else "all others" if first else ", ".join(paths[:SHOWN]) + more)
    frame["which"] = texts
    frame["runs"] = [f"{runs} of {of}" for runs, of in zip(frame["runs"], frame["of"], strict=True)]
    return frame[["property", "value", "runs", "which"]]


def warning(rows: Iterable[Mapping[str, str]]) -> str | None:
    """A warning if the runs differ in commit, versions or machine; `rows` are those of runs.csv."""
    values: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row["property"] not in OF_STAGES:
            values[row["property"]].append(f"{row['value']} ({row['runs']} runs)")
    mixed = [f"{name} {', '.join(counts)}" for name, counts in values.items() if len(counts) > 1]
    return f"Runs differ in more than the config: {'; '.join(mixed)}." if mixed else None
