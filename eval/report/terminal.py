"""Stage `show`: print the claims, the headline table and the paths of the results."""

import argparse
import sys

from eval.grid.run_versions import warning
from eval.report import claims
from eval.report.headline import Row, read_headline, read_table, sentence, undercovered_cells
from salsa.runtime.errors import UserError
from salsa.runtime.texts import visible

SHOWN = 4
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


def run(arguments: argparse.Namespace) -> None:
    rows = read_headline(arguments.results)
    first = rows[0]
    if claimed := claims.read_claims(arguments.results):
        print(visible("\n".join(["", *claims.lines(claimed), "", claims.sentence(claimed)])))
    print(f"\nAdjusted win rate of {first['a']} against {first['b']}, judged by {first['judge']}\n")
    print(visible("\n".join(headline(rows))))
    print(f"\n{sentence(rows)}")
    if first["over"]:
        print(f"n counts questions; intervals are over {first['over']}. win_rates.md has each pair of runs.")
    if unlike := warning(read_table(arguments.results, "runs")):
        print(f"{unlike} See {arguments.results / 'tables/runs.md'}.")
    print()
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
