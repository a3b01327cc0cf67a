"""Stage `report`: one self-contained HTML page with tables, figures and sample answers side by side."""

import argparse
import html
import json
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from eval.archives.calibration import card_rows
from eval.grid.layout import Grid, generation_file, judgment_file
from eval.grid.run_versions import warning
from eval.report import claims
from eval.report.assumptions import Assumptions, compared, load_assumptions
from eval.report.figures import plots
from eval.report.headline import read_headline, read_table, sentence
from eval.tables.claimed import CLAIMS
from eval.tables.formats import number, with_interval
from eval.tables.judged import HEADLINE
from eval.tables.of_grid import tables_of
from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import read_jsonl
from salsa.runtime.outputs import output_file
from salsa.runtime.provenance import Run
from salsa.runtime.settings import load_settings, load_values
from salsa.runtime.texts import visible

TEMPLATES = Path(__file__).parent
SAMPLES = 10
Row = dict[str, Any]


def read_text(path: Path) -> str:
    """Text of an input file; a UserError if it is missing."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot read it ({error.strerror}): make tables and figures first") from None


def markdown_table(text: str) -> tuple[list[str], list[list[str]], list[str]]:
    """Parse a table of the stage `tables`: titles, rows and notes."""
    lines = text.splitlines()
    end = lines.index("")
    cells = [[_unescaped(cell) for cell in line[2:-2].split(" | ")] for line in lines[:end]]
    return cells[0], cells[2:], [_unescaped(line) for line in lines[end:] if line]


def _unescaped(text: str) -> str:
    """The inverse of formats.markdown_text."""
    return html.unescape(text.replace(r"\|", "|"))


def spread(rows: list[Row], count: int) -> list[Row]:
    """`count` evenly spaced rows, starting with the first; a selection that does not depend on outcomes."""
    return rows if len(rows) <= count else [rows[i * len(rows) // count] for i in range(count)]


def judged_samples(results: Path, grid: Grid) -> list[Row]:
    """Samples of judged matches of each cell, with questions and both answers."""
    cells = []
    for model in grid.models:
        answers: dict[tuple[str, str], dict[str, list[Row]]] = {}
        for comparison in grid.comparisons:
            for benchmark in grid.benchmarks:
                files = [judgment_file(results, model, benchmark, comparison, name) for name in grid.replicates]
                rows = [row for file in files for row in read_jsonl(file)]
                shown = spread([row for row in rows if row["consistent"] is not None], SAMPLES)
                for policy in {row[side] for row in shown for side in "ab"}:
                    if (policy, benchmark) not in answers:
                        file = generation_file(results, model, policy, benchmark)
                        answers[policy, benchmark] = {row["question_id"]: row["turns"] for row in read_jsonl(file)}
                cells.append(
                    {
                        "model": model,
                        "benchmark": benchmark,
                        "comparison": comparison,
                        "asked": sum(row["consistent"] is not None for row in rows),
                        "samples": [sample(row, answers, benchmark) for row in shown],
                    }
                )
    return cells


def sample(row: Row, answers: dict[tuple[str, str], dict[str, list[Row]]], benchmark: str) -> Row:
    """A judgment for the page: both dialogues and the outcome of each game."""
    sides = {row[side]: answers[row[side], benchmark][row["question_id"]][: row["turn"]] for side in "ab"}
    names = {"a": row["a"], "b": row["b"]}
    games = [
        f"{names[game['order'][0]]} shown first: {names.get(game['outcome'], game['outcome'])}"
        + (" (strong)" if game["strong"] else "")
        for game in row["games"]
    ]
    turns = [
        {"user": first["user"], "answers": {name: turns[i]["assistant"] for name, turns in sides.items()}}
        for i, first in enumerate(sides[row["a"]])
    ]
    return {"question": row["question_id"], "category": row["category"], "turns": turns, "games": games}


def calibration(path: Path) -> Row:
    """The judge's card, with figures as text."""
    try:
        card: Row = json.loads(read_text(path))
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}): rebuild it with python -m eval calibrate") from None
    frame = pd.DataFrame(card_rows(card))
    rows = zip(frame["cell"], frame["figure"], with_interval(frame, "estimate"), frame["n"], strict=True)
    cost = None if card["cost"] is None else number(card["cost"], 4)
    return {**card, "cost": cost, "rows": [[str(value) for value in row] for row in rows]}


def read_svg(path: Path) -> str:
    """An SVG without its XML prologue, to embed in HTML."""
    text = read_text(path)
    return text[text.index("<svg") :]


def shown(value: Any) -> Any:
    """Escape control characters in texts of models, judges and files."""
    return visible(value) if type(value) is str else value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", type=Path, required=True, help="the grid's results folder")
    parser.add_argument("--settings", required=True, help="a Grid (eval/grid/layout.py): JSON or FILE.yaml")
    parser.add_argument(
        "--calibration", type=Path, metavar="CARD.json", help="the judge's card, made by python -m eval calibrate"
    )
    parser.add_argument(
        "--assumptions", type=Path, metavar="FILE.yaml", help="the config's assumptions; needs --values"
    )
    parser.add_argument("--values", default="{}", help="the grid's settings by dotted name: JSON or FILE.yaml")
    parser.add_argument("--out", type=Path, required=True)


def run(arguments: argparse.Namespace) -> None:
    grid = load_settings(arguments.settings, Grid)
    tables, figures = arguments.results / "tables", arguments.results / "figures"
    inputs = {"tables": tables, "figures": figures}
    inputs |= {"calibration": arguments.calibration} if arguments.calibration else {}
    inputs |= {"assumptions": arguments.assumptions} if arguments.assumptions else {}
    values = load_values(arguments.values, "--values")
    record = Run("report", {**grid.model_dump(mode="json"), "values": values}, inputs, {})
    headline = read_headline(arguments.results)
    assumptions = load_assumptions(arguments.assumptions) if arguments.assumptions else Assumptions.none()
    claimed = claims.read_claims(arguments.results)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=shown,
    )
    page = environment.get_template("report.html.j2").render(
        grid=grid,
        claims=claims.cards(arguments.results, assumptions),
        verdicts=claims.sentence(claimed) if claimed else "",
        claim_notes=markdown_table(read_text(tables / "claims.md"))[2],
        headline=headline,
        answer=sentence(headline),
        made_alike=warning(read_table(arguments.results, "runs")),
        headline_notes=markdown_table(read_text(tables / "headline.md"))[2],
        tables=[
            (table.title, *markdown_table(read_text(tables / f"{table.name}.md")))
            for table in tables_of(grid)
            if table not in (CLAIMS, HEADLINE)  # shown first, with the answer
        ],
        figures=[(read_svg(figures / f"{plot.name}.svg"), plot.caption) for plot in plots(grid)],
        calibration=calibration(arguments.calibration) if arguments.calibration else None,
        assumptions=compared(assumptions, values),
        cells=judged_samples(arguments.results, grid),
        inputs=record.inputs,
        replicates=grid.replicates,
    )
    with output_file(arguments.out, record) as path:
        path.write_text(page, encoding="utf-8")
