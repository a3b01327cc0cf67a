"""Stage `report`: one HTML page, complete in itself, with tables, figures and sample answers side by side."""

import argparse
import csv
from pathlib import Path
from typing import Any

import jinja2

from eval.grid import Grid, policies
from salsa.errors import UserError
from salsa.stage import Run, load_settings, output_file, read_jsonl

TEMPLATES = Path(__file__).parent / "templates"
TABLES = {
    "win_rates": "All comparisons",
    "improvements": "Differences in reward, question by question",
    "scores": "What is measured without a judge",
    "grades": "Single-answer grades",
    "soup": "Soups between two SFT models",
    "reward_model": "Reward models",
    "training": "Training runs",
}
FIGURES = {
    "win_rates": "Adjusted win rates with their intervals; the dashed line is no difference.",
    "soup": "Along the line between two SFT models. Bars are one standard error over prompts.",
    "training": "Training: thin lines are single runs, thick ones their mean.",
    "reward_kl": "Reward against the distance from SFT 1, a point a step: where the learned reward goes on rising "
    "and the gold reward falls, the reward model is over-optimised.",
}
Row = dict[str, Any]


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot read it ({error.strerror}): make tables and figures first") from None


def markdown_table(text: str) -> tuple[list[str], list[list[str]], list[str]]:
    """Titles, rows and notes of a table that the stage `tables` wrote."""
    lines = text.splitlines()
    end = lines.index("")
    cells = [[cell.replace(r"\|", "|") for cell in line[2:-2].split(" | ")] for line in lines[:end]]
    return cells[0], cells[2:], [line for line in lines[end:] if line]


def samples(results: Path, grid: Grid) -> list[Row]:
    """The first question of each benchmark with each method's answer, by the first model and RL seed."""
    model = grid.models[0]
    found = []
    for benchmark in grid.benchmarks:
        answers: dict[str, Row] = {}
        for method in grid.methods:
            policy = policies(grid.methods, grid.rl_seeds, method)[0]
            answers[policy] = read_jsonl(results / "generations" / model / policy / f"{benchmark}.jsonl")[0]
        first = next(iter(answers.values()))
        turns = [
            {"user": turn["user"], "answers": {name: _turn(row, i) for name, row in answers.items()}}
            for i, turn in enumerate(first["turns"])
        ]
        found.append({"benchmark": benchmark, "model": model, "question": first["question_id"], "turns": turns})
    return found


def _turn(row: Row, index: int) -> str:
    return str(row["turns"][index]["assistant"]) if index < len(row["turns"]) else ""


def read_svg(path: Path) -> str:
    """The picture without its XML prologue, so that it can stand inside HTML."""
    text = read_text(path)
    return text[text.index("<svg") :]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", type=Path, required=True, help="the grid's results folder")
    parser.add_argument("--settings", required=True, help="JSON: what eval/grid.py calls a Grid")
    parser.add_argument("--out", type=Path, required=True)


def run(arguments: argparse.Namespace) -> None:
    grid = load_settings(arguments.settings, Grid)
    tables, figures = arguments.results / "tables", arguments.results / "figures"
    record = Run("report", grid.model_dump(mode="json"), {"tables": tables, "figures": figures}, {})
    with (tables / "headline.csv").open(encoding="utf-8", newline="") as file:
        headline = list(csv.DictReader(file))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template("report.html.j2").render(
        grid=grid,
        headline=headline,
        headline_notes=markdown_table(read_text(tables / "headline.md"))[2],
        tables=[(title, *markdown_table(read_text(tables / f"{name}.md"))) for name, title in TABLES.items()],
        figures=[(read_svg(figures / f"{name}.svg"), caption) for name, caption in FIGURES.items()],
        samples=samples(arguments.results, grid),
        inputs=record.inputs,
        seeds=grid.rl_seeds,
    )
    with output_file(arguments.out, record) as path:
        path.write_text(page, encoding="utf-8")
