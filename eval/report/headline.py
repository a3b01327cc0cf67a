"""The headline comparison: its table, and its result as a sentence."""

import csv
from collections import Counter
from pathlib import Path

from eval.benchmarks.base import MISSING_REASONS, format_counts
from eval.grid.layout import ALL_MODELS
from salsa.runtime.errors import UserError

Row = dict[str, str]
LARGEST_FIELD = 2**30  # characters; runs.csv lists the paths of all runs that differ from the others
csv.field_size_limit(LARGEST_FIELD)
CELLS = {"win_rates": ("comparison", "model", "benchmark"), "grades": ("model", "benchmark", "method")}


def read_table(results: Path, name: str) -> list[Row]:
    """Rows of a table's CSV file."""
    path = results / "tables" / f"{name}.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise UserError(f"{path}: cannot read it ({error.strerror}): make it with snakemake --cores 2") from None


def read_headline(results: Path) -> list[Row]:
    """Rows of headline.csv; a UserError if there are none."""
    rows = read_table(results, "headline")
    if not rows:
        path = results / "tables" / "headline.csv"
        raise UserError(f"{path}: it has no rows: rebuild it with python -m eval tables")
    return rows


def undercovered_cells(results: Path) -> list[str]:
    """Cells of comparisons and grades below the coverage floor, with their coverage and the reasons."""
    texts: dict[str, str] = {}
    for table, names in CELLS.items():
        for row in read_table(results, table):
            if row["enough_coverage"] != "True":
                why = format_counts({why: int(row[why]) for why in MISSING_REASONS})
                cell = " ".join(row[name] for name in names)
                texts.setdefault(cell, f"{cell} ({float(row['coverage']):.1%}{': ' if why else ''}{why})")
    return list(texts.values())


def outcome(row: Row) -> str:
    """Result of a cell: above or below 1/2 if its interval is on that side; else undecided.

    An interval over questions alone does not include the variation between training runs, so every pair of runs has to
    be on that side, too.
    """
    if not row["win_rate"]:
        return "not measured"
    if not row["low"]:
        return "undecided"
    low, high = float(row["low"]), float(row["high"])
    if row["over"] == "questions":
        low, high = min(low, float(row["pair_low"])), max(high, float(row["pair_high"]))
    if low > 0.5:
        return "above"
    return "below" if high < 0.5 else "undecided"


def sentence(rows: list[Row]) -> str:
    """The result as a sentence. Rows over all models do not count as cells."""
    cells = [row for row in rows if row["model"] != ALL_MODELS]
    counts = Counter(outcome(row) for row in cells)
    parts = [f"better than {rows[0]['b']} in {counts['above']} of {len(cells)} cells", f"worse in {counts['below']}"]
    parts += [f"undecided in {counts['undecided']}"]
    parts += [f"not measured in {counts['not measured']}"] if counts["not measured"] else []
    alone = {row["over"] for row in cells} <= {"questions", ""}
    over = "questions and each pair of training runs" if alone else "training runs and questions"
    criterion = f"{float(rows[0]['confidence']):.0%} interval over {over} on one side"
    return f"{rows[0]['a']} is {', '.join(parts[:-1])} and {parts[-1]} ({criterion})."
