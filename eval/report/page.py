"""Stage `report`: one self-contained HTML page with claims, tables, figures, judged answers and their runs."""

import argparse
import base64
import hashlib
import html
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from eval.archives.calibration import card_rows
from eval.figures.of_grid import plots
from eval.grid.layout import Grid
from eval.grid.run_versions import warning
from eval.report import claims
from eval.report.assumptions import Assumptions, compared, load_assumptions
from eval.report.claim_cards import cards
from eval.report.headline import read_headline, read_table, sentence
from eval.report.run_ids import PolicyPair, describe_replicates, policy_pairs, sft_runs
from eval.report.samples import browser_data
from eval.tables.claimed import CLAIMS
from eval.tables.formats import number, with_interval
from eval.tables.judged import HEADLINE
from eval.tables.of_grid import tables_of
from salsa.runtime.errors import UserError
from salsa.runtime.outputs import output_file
from salsa.runtime.provenance import Run
from salsa.runtime.settings import load_settings, load_values
from salsa.runtime.texts import visible

TEMPLATES = Path(__file__).parent
STYLE, SCRIPT = TEMPLATES / "page.css", TEMPLATES / "page.js"
NO_RECORD = "no record"
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


def content_hash(script: str) -> str:
    """A script as the Content-Security-Policy names it: the page runs this one and no other."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def in_a_sentence(title: str) -> str:
    """A title as a part of a sentence."""
    return title[:1].lower() + title[1:]


def run_rows(pairs: Iterable[PolicyPair], grid: Grid) -> dict[str, list[list[str]]]:
    """The training runs of each comparison, one row for each pair of policies."""
    rows: dict[str, list[list[str]]] = {name: [] for name in grid.comparisons}
    for pair in pairs:
        seed = "" if pair.rl_seed is None else str(pair.rl_seed)
        ids = (pair.a_run or NO_RECORD, pair.b_run or NO_RECORD)
        place = [pair.model, pair.replicate or "the only one", sft_runs(pair.sft), seed]
        rows[pair.comparison].append([*place, pair.a, ids[0], pair.b, ids[1]])
    return rows


def assumption_rows(assumptions: Assumptions, values: Row) -> Row | None:
    """The settings with their sources, and how many the abstract states; None without any."""
    rows = compared(assumptions, values)
    if not rows:
        return None
    return {
        "rows": [[row[name] for name in ("setting", "value", "standing", "source")] for row in rows],
        "stated": sum(row["standing"] == "abstract" for row in rows),
    }


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
    pairs = policy_pairs(arguments.results, grid)
    script = SCRIPT.read_text(encoding="utf-8")
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
        methods=[name for name, method in grid.methods.items() if method.answers],
        replicates=describe_replicates(grid.replicates),
        style=STYLE.read_text(encoding="utf-8"),
        script=script,
        script_hash=content_hash(script),
        claims=cards(arguments.results, grid, assumptions),
        verdicts=claims.sentence(claimed) if claimed else "",
        claim_notes=markdown_table(read_text(tables / "claims.md"))[2],
        headline=headline,
        answer=sentence(headline),
        made_alike=warning(read_table(arguments.results, "runs")),
        headline_notes=markdown_table(read_text(tables / "headline.md"))[2],
        tables=[
            (table.name, table.title, *markdown_table(read_text(tables / f"{table.name}.md")))
            for table in tables_of(grid)
            if table not in (CLAIMS, HEADLINE)  # shown first, with the answer
        ],
        table_titles={table.name: in_a_sentence(table.title) for table in tables_of(grid)},
        figures=[(plot, read_svg(figures / f"{plot.name}.svg")) for plot in plots(grid)],
        figure_titles={plot.name: f"Figure: {in_a_sentence(plot.title)}" for plot in plots(grid)},
        calibration=calibration(arguments.calibration) if arguments.calibration else None,
        assumptions=assumption_rows(assumptions, values),
        data=browser_data(arguments.results, grid, pairs, arguments.ledger),
        runs=run_rows(pairs, grid),
        inputs=record.inputs,
    )
    with output_file(arguments.out, record) as path:
        path.write_text(page, encoding="utf-8")
