"""Stage `show`: print the claims, the headline table and the paths of the results."""

import argparse
import os
import re
import sys
import textwrap
from collections.abc import Iterable
from itertools import chain

from eval.grid.run_versions import warning
from eval.report import claims
from eval.report.headline import Row, read_headline, read_table, sentence, undercovered_cells
from salsa.runtime.errors import UserError
from salsa.runtime.texts import visible

SHOWN = 4
NARROWEST = 30  # columns: below, lines are left to the terminal
COLUMNS = ("model", "benchmark", "adjusted win rate", "interval", "n")


def headline(rows: list[Row]) -> list[str]:
    """Lines of the table, with aligned columns."""
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


def text(row: Row, key: str) -> str:
    """A figure with three digits; a dash if it is missing."""
    return f"{float(row[key]):.3f}" if row[key] else "–"


def limits(row: Row) -> str:
    """The interval, with the coverage if it is below the floor."""
    mark = "" if row["enough_coverage"] == "True" else f" (coverage {float(row['coverage']):.0%})"
    return f"[{text(row, 'low')}, {text(row, 'high')}]{mark}"


def terminal_columns() -> int | None:
    """Columns of the terminal; None without one. The workflow sends stdout through tee: then stderr tells."""
    for stream in (sys.stdout, sys.stderr):
        if stream.isatty():
            return os.get_terminal_size(stream.fileno()).columns or None
    return None


def wrap(lines: Iterable[str], columns: int | None, indent: int = 0) -> str:
    """Lines as one text, broken between words, but not in an interval, to fit the terminal.

    Continued lines are indented.
    """
    if columns is None or columns < NARROWEST:
        return "\n".join(lines)
    kept = [re.sub(r"(?<=,) (?=[^][]*\])", "\N{NO-BREAK SPACE}", line) for line in lines]
    inner = " " * indent
    parts = [
        textwrap.wrap(line, columns, subsequent_indent=inner, break_long_words=False, break_on_hyphens=False) or [""]
        for line in kept
    ]
    return "\n".join(chain.from_iterable(parts)).replace("\N{NO-BREAK SPACE}", " ")


def run(arguments: argparse.Namespace) -> None:
    rows = read_headline(arguments.results)
    first = rows[0]
    columns = terminal_columns()
    if claimed := claims.read_claims(arguments.results):
        print(visible("\n" + wrap(claims.lines(claimed), columns, claims.INDENT + 2)))
        print(visible("\n" + wrap([claims.sentence(claimed)], columns)))
    print("\n" + wrap([f"Adjusted win rate of {first['a']} against {first['b']}, judged by {first['judge']}"], columns))
    print(visible("\n" + "\n".join(headline(rows))))
    notes = [sentence(rows)]
    if first["over"]:
        notes.append(f"n counts questions; intervals are over {first['over']}. win_rates.md has each pair of runs.")
    if unlike := warning(read_table(arguments.results, "runs")):
        notes.append(f"{unlike} See {arguments.results / 'tables/runs.md'}.")
    print(f"\n{wrap(notes, columns)}\n")
    for name in ("tables", "figures", "report.html"):
        print(f"{name.removesuffix('.html'):<8} {arguments.results / name}")
    cells = undercovered_cells(arguments.results)
    if cells and arguments.below_floor == "fail":
        sys.stdout.flush()
        more = " and more" if len(cells) > SHOWN else ""
        raise UserError(
            f"{len(cells)} cells with too few verdicts: {', '.join(cells[:SHOWN])}{more}: "
            f"{arguments.results / 'tables/win_rates.md'} lists all; fix the judge and rerun, or set "
            "tables.below_floor: mark"
        )
