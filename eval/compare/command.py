"""Command `compare`: whether two finished grids say the same.

Two runs of one config on two machines, of two versions, or with another judge or other data: each figure of a claim
that both grids have is compared, with an interval over the training runs and questions of both.
"""

import argparse
from pathlib import Path

import pandas as pd

from eval.compare.figures import ALL, differences, sentence
from eval.compare.settings import (
    Difference,
    differing_claims,
    differing_settings,
    differing_versions,
    shared_questions,
)
from eval.grid.layout import Grid, measured_files
from eval.grid.results import GridResults
from eval.planning.formats import align_columns
from salsa.runtime.errors import UserError
from salsa.runtime.outputs import output_file
from salsa.runtime.settings import load_settings
from salsa.runtime.texts import visible

SHOWN = 20
HEAD = ("claim", "figure", "model", "benchmark", "a", "b", "a - b", "interval", "")


def load_results(folder: Path) -> GridResults:
    """A finished grid, with the settings of its tables."""
    settings = folder / "settings/tables.yaml"
    if not settings.is_file():
        raise UserError(f"{folder}: not the results of a grid (no {settings}): name one, such as results/mini")
    grid = load_settings(str(settings), Grid, str(settings))
    missing = [path for path in measured_files(folder, grid).values() if not path.exists()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"{missing[0]}{more}: missing; comparing needs all results, not the tables alone")
    return GridResults(folder, grid)


def figure_lines(rows: pd.DataFrame, confidence: float) -> list[str]:
    """The differences as a table: each figure over all, and the cells of win rates once."""
    is_rate = rows["of"] == "judgments"
    is_new = ~rows.duplicated(["of", "model", "benchmark"])
    shown = rows[(rows["model"] == ALL) | (is_rate & is_new)]
    table = [
        (
            *(row[name] for name in ("claim", "figure", "model", "benchmark")),
            *(f"{row[name]:.3f}" for name in ("a", "b", "difference")),
            f"[{row['low']:.3f}, {row['high']:.3f}]",
            "differs" if row["p_holm"] <= 1 - confidence else "",
        )
        for row in shown.to_dict("records")
    ]
    return align_columns([HEAD, *table], left=4)


def listed(title: str, found: list[Difference]) -> list[str]:
    """Differences as lines, at most SHOWN."""
    lines = [f"  {what}: {a} | {b}" for what, a, b in found[:SHOWN]]
    more = [f"  and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return ["", f"{title} (a | b):", *lines, *more] if found else ["", f"{title}: none"]


def run(arguments: argparse.Namespace) -> None:
    a, b = load_results(arguments.a), load_results(arguments.b)
    rows, confidence = differences(a, b), a.grid.tables.confidence
    lines = [f"a: {arguments.a}", f"b: {arguments.b}", "", *figure_lines(rows, confidence)]
    lines += listed("settings that differ", differing_settings(a, b))
    lines += listed("versions and machines that differ", differing_versions(a, b))
    if other := shared_questions(a, b):
        lines += ["", "questions that differ:", *(f"  {line}" for line in other)]
    if claims := differing_claims(a, b):
        lines += ["", f"claims that are not compared, because they differ: {', '.join(claims)}"]
    lines += ["", sentence(rows, confidence, arguments.margin)]
    print(visible("\n".join(lines)))
    if arguments.out is not None:
        with output_file(arguments.out) as path:
            rows.to_csv(path, index=False)
