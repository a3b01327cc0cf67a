"""What the runs behind a grid's results were made with: commits, package versions, processors.

A grid may be begun with one commit, torch or machine and gone on with another: what is there stays. Then its cells are
not made alike, and the tables say which are.
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
    """By its path, the run.json of each file and of all that it was made from, as far as they are there."""
    found: dict[str, dict[str, Any]] = {}
    left, seen = list(files), set()
    while left:
        path = left.pop()
        # A file of a folder that a stage made has its run.json in there.
        whole = path if run_file(path).exists() else path.parent
        if path in seen or str(whole) in found or not run_file(whole).exists():
            continue
        seen.add(path)
        try:
            record = json.loads(run_file(whole).read_text(encoding="utf-8"))
            left += [Path(entry["path"]) for entry in record["inputs"].values()]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{run_file(whole)}: no record of a run ({error}): make {whole} again") from None
        found[str(whole)] = record
    return found


def properties(record: Mapping[str, Any]) -> dict[str, str]:
    """What a run was made with, as text."""
    machine = {name: record.get(name.replace(" ", "_")) for name in MACHINE}
    commit = str(record.get("git_commit") or "no checkout")
    # A whole hash is long; what follows it says that the code was changed.
    named = {COMMIT: re.sub(r"^([0-9a-f]{12})[0-9a-f]{28}", r"\1", commit), **record.get("versions", {}), **machine}
    return {name: str(value) for name, value in named.items() if value is not None}


def made_with(files: Iterable[Path]) -> Found:
    """By property and value, the paths of the runs that have it, each in order; values from the most runs to the
    fewest."""
    found: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path, record in sorted(records(files).items()):
        for name, value in properties(record).items():
            found[name][value].append(path)
    order = [name for name in (COMMIT, *MACHINE) if name in found]
    order += sorted(found.keys() - set(order))
    return {name: dict(sorted(found[name].items(), key=lambda entry: (-len(entry[1]), entry[0]))) for name in order}


def differing(found: Found) -> list[str]:
    """The properties of which runs have unlike values. Stages may well have devices and threads of their own."""
    return [name for name, values in found.items() if len(values) > 1 and name not in OF_STAGES]


def table(found: Found) -> pd.DataFrame:
    """A row a value: those of the machines, and of what else differs."""
    differ = differing(found)
    rows = []
    for name, values in found.items():
        if name in differ or name in MACHINE:
            runs = sum(map(len, values.values()))
            rows += [(name, value, len(paths), runs, ";".join(paths)) for value, paths in values.items()]
    return pd.DataFrame(rows, columns=COLUMNS)


def shown(frame: pd.DataFrame) -> pd.DataFrame:
    """For a reader: the first paths of each value but the most common one."""
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
    """A line for the terminal where the runs were not made alike; `rows` as runs.csv has them."""
    values: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row["property"] not in OF_STAGES:
            values[row["property"]].append(f"{row['value']} ({row['runs']} runs)")
    mixed = [f"{name} {', '.join(found)}" for name, found in values.items() if len(found) > 1]
    return f"Not all runs are made alike: {'; '.join(mixed)}." if mixed else None
