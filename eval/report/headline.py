"""The headline: the table that `tables` wrote for the comparison the grid is about, and what it says in a sentence."""

import csv
from collections import Counter
from pathlib import Path

from eval.benchmarks.base import MISSING_REASONS, format_counts
from eval.tables.grid import ALL_MODELS
from salsa.runtime.errors import UserError

Row = dict[str, str]
CELLS = {"win_rates": ("comparison", "model", "benchmark"), "grades": ("model", "benchmark", "method")}


def read_table(results: Path, name: str) -> list[Row]:
    """The rows of one of the tables."""
    path = results / "tables" / f"{name}.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise UserError(f"{path}: cannot read it ({error.strerror}): make it with snakemake --cores 2") from None


def read_headline(results: Path) -> list[Row]:
    """The rows of headline.csv; never none."""
    rows = read_table(results, "headline")
    if not rows:
        path = results / "tables" / "headline.csv"
        raise UserError(f"{path}: it has no rows: make it again with python -m eval tables")
    return rows


def too_little(results: Path) -> list[str]:
    """The cells, of all comparisons and grades, with less than the floor's share of judgments, their share, and
    why the others are missing."""
    found: dict[str, str] = {}
    for table, names in CELLS.items():
        for row in read_table(results, table):
            if row["enough_coverage"] != "True":
                why = format_counts({why: int(row[why]) for why in MISSING_REASONS})
                cell = " ".join(row[name] for name in names)
                found.setdefault(cell, f"{cell} ({float(row['coverage']):.1%}{': ' if why else ''}{why})")
    return list(found.values())


def outcome(row: Row) -> str:
    """What a cell says: above or below one half, if its interval and every single pair of runs are; else undecided.

    The interval leaves out what other training runs would give, so it alone decides nothing.
    """
    if not row["win_rate"]:
        return "not measured"
    if min(float(row["low"]), float(row["pair_low"])) > 0.5:
        return "above"
    return "below" if max(float(row["high"]), float(row["pair_high"])) < 0.5 else "undecided"


def sentence(rows: list[Row]) -> str:
    """The answer in a sentence; rows over all models are no cells of their own."""
    cells = [row for row in rows if row["model"] != ALL_MODELS]
    found = Counter(outcome(row) for row in cells)
    parts = [f"better than {rows[0]['b']} in {found['above']} of {len(cells)} cells", f"worse in {found['below']}"]
    parts += [f"undecided in {found['undecided']}"]
    parts += [f"not measured in {found['not measured']}"] if found["not measured"] else []
    criterion = f"{float(rows[0]['confidence']):.0%} interval over questions and each pair of training runs on one side"
    return f"{rows[0]['a']} is {', '.join(parts[:-1])} and {parts[-1]} ({criterion})."
