"""Stage `show`: prints the headline table and where everything lies."""

import argparse
import csv
from pathlib import Path

from salsa.errors import UserError

COLUMNS = ("model", "benchmark", "adjusted win rate", "interval", "n")


def headline(rows: list[dict[str, str]]) -> list[str]:
    """The lines of the table: columns aligned, figures to the right."""
    first = rows[0]
    interval = f"{float(first['confidence']):.0%} interval"
    cells = [
        [row["model"], row["benchmark"], *(text(row, key) for key in ("win_rate",)), limits(row), row["n"]]
        for row in rows
    ]
    titles = [interval if name == "interval" else name for name in COLUMNS]
    widths = [max(len(line[i]) for line in [titles, *cells]) for i in range(len(COLUMNS))]
    lines = []
    for line in [titles, *cells]:
        parts = [
            part.ljust(width) if i < 2 else part.rjust(width)
            for i, (part, width) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append("  ".join(parts).rstrip())
    return lines


def text(row: dict[str, str], key: str) -> str:
    return f"{float(row[key]):.3f}" if row[key] else "–"


def limits(row: dict[str, str]) -> str:
    mark = "" if row["enough_coverage"] == "True" else f" (coverage {float(row['coverage']):.0%})"
    return f"[{text(row, 'low')}, {text(row, 'high')}]{mark}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", type=Path, required=True, help="the grid's results folder")


def run(arguments: argparse.Namespace) -> None:
    path = arguments.results / "tables" / "headline.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise UserError(f"{path}: cannot read it ({error.strerror}): make it with snakemake --cores 2") from None
    if not rows:
        raise UserError(f"{path}: it has no rows: make it again with python -m eval tables")
    first = rows[0]
    print(f"\nAdjusted win rate of {first['a']} against {first['b']}, judged by {first['judge']}\n")
    print("\n".join(headline(rows)))
    print("\nn counts questions, and the interval is over questions; win_rates.md has each pair of training runs.\n")
    for name in ("tables", "figures", "report.html"):
        print(f"{name.removesuffix('.html'):<8} {arguments.results / name}")
