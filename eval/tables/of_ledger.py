"""Command `table`: print tables of all verdicts in a ledger, by model.

Output is Markdown, or one JSON list of the rows of all tables in which a missing figure is null (docs/formats.md).
"""

import argparse
import json
import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from eval.ledger.calls import Entry, rare_garbage_collection, read_calls
from eval.ledger.index import read_index
from eval.statistics import length_control
from eval.tables.formats import NOTHING, markdown, number, with_control, with_interval
from eval.tables.ledger_aggregate import (
    ALL,
    Judged,
    arena_table,
    judged,
    match_frame,
    pair_table,
    single_frame,
    single_table,
)
from salsa.config.sections import Tables
from salsa.runtime.texts import visible

FLOOR = Tables.model_fields["coverage_floor"].default
NOTES = {
    "single": "Mean ratings from 1 to 10; n counts answers.",
    "pair": "n counts matches (turns of questions) with a verdict in both orders. Adjusted: two games that disagree "
    "are a tie; games: each game counts separately. Length-controlled: the adjusted rate at equal answer lengths, by "
    "AlpacaEval 2's model (far off: so different that length or gaming may have decided). Consistent: share of matches "
    "in which both orders agree. First place won: 0.5 without position bias.",
    "arena": "n counts questions. Win rate: a strong verdict counts three times. Bradley-Terry: probability of beating "
    "the baseline, fitted to the games of all models; with a single baseline it equals the win rate. "
    "Length-controlled and consistent: as for pairs.",
}


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows for JSON, with None for NaN."""
    rows = frame.astype(object).to_dict("records")
    return [{key: None if isinstance(v, float) and math.isnan(v) else v for key, v in row.items()} for row in rows]


def cover(frame: pd.DataFrame) -> list[str]:
    """Coverage as text, marked if it is below the floor."""
    return [number(value) + ("" if value >= FLOOR else " (too low)") for value in frame["coverage"]]


def shown_single(table: pd.DataFrame) -> pd.DataFrame:
    """One row per model: mean over all answers, of each turn and of each category."""
    rows = []
    for (model,), part in table.groupby(["model"], sort=False):
        [overall] = part[(part["turn"] == ALL) & (part["category"] == ALL)].index
        row = {"model": model, "n": part.loc[overall, "n"]}
        row["mean"] = with_interval(part.loc[[overall]], "mean", digits=2)[0]
        for turn, mean in part.loc[part["category"] == ALL, ["turn", "mean"]].itertuples(index=False):
            if turn != ALL:
                row[f"turn {turn}"] = number(mean, 2)
        for category, mean in part.loc[part["turn"] == ALL, ["category", "mean"]].itertuples(index=False):
            if category != ALL:
                row[category] = number(mean, 2)
        row["coverage"] = cover(part.loc[[overall]])[0]
        rows.append(row)
    shown = pd.DataFrame(rows).fillna(NOTHING)
    return shown[[*(name for name in shown if name != "coverage"), "coverage"]]


def shown_pair(table: pd.DataFrame) -> pd.DataFrame:
    """One row per pair of models."""
    shown = table[["model_a", "model_b", "n", "wins", "losses", "ties"]].copy()
    shown["adjusted win rate"] = with_interval(table, "adjusted_win_rate")
    shown["games win rate"] = with_interval(table, "games_win_rate", "games_low", "games_high")
    shown["length-controlled"] = with_control(table)
    shown["consistent"] = [number(value) for value in table["swap_consistency"]]
    shown["first place won"] = [number(value) for value in table["first_place"]]
    shown["coverage"] = cover(table)
    return shown


def shown_arena(table: pd.DataFrame) -> pd.DataFrame:
    """One row per model and baseline."""
    shown = table[["model", "baseline", "n"]].copy()
    shown["win rate"] = with_interval(table, "win_rate")
    shown["Bradley-Terry"] = with_interval(table, "bt_score", "bt_low", "bt_high")
    shown["length-controlled"] = with_control(table)
    shown["consistent"] = [number(value) for value in table["swap_consistency"]]
    shown["coverage"] = cover(table)
    return shown


SHOWN = {"single": shown_single, "pair": shown_pair, "arena": shown_arena}


def dates(verdicts: list[Judged], calls: dict[str, Entry], judge: str) -> str:
    """When a judge was called, if the ledger says so."""
    called = {calls[entry.item.call].get("date") for entry in verdicts if entry.item.judge == judge and entry.item.call}
    days = sorted(date[:10] for date in called if date)
    if not days:
        return f"Judge: {judge}; date of its calls unknown."
    return f"Judge: {judge}, called {days[0] if days[0] == days[-1] else f'from {days[0]} to {days[-1]}'}."


def text(
    tables: dict[str, pd.DataFrame], verdicts: list[Judged], calls: dict[str, Entry], interval: str
) -> Iterator[str]:
    """Yield the tables of each judge and benchmark as Markdown."""
    for kind, table in tables.items():
        for (judge, benchmark), part in table.groupby(["judge", "benchmark"], sort=False):
            yield f"## {benchmark}, {kind}\n"
            yield markdown(SHOWN[kind](part), [f"{dates(verdicts, calls, judge)} {NOTES[kind]} {interval}"])


def run(arguments: argparse.Namespace) -> None:
    with rare_garbage_collection():
        _run(arguments)


def _run(arguments: argparse.Namespace) -> None:
    index = read_index(arguments.ledger)
    calls = read_calls(arguments.ledger, without=("messages", "parameters", "usage"))
    verdicts = judged(index, calls, str(arguments.ledger))
    matches = match_frame(verdicts)
    tables = {
        "single": single_table(single_frame(verdicts), arguments.confidence),
        "pair": pair_table(matches, arguments.confidence),
        "arena": arena_table(matches, arguments.confidence),
    }
    length_control.warn(tables["pair"], ("benchmark", "model_a", "model_b"))
    length_control.warn(tables["arena"], ("benchmark", "model", "baseline"))
    if arguments.format == "json":
        rows = [row for table in tables.values() for row in records(table)]
        print(visible("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]"))
        return
    interval = f"Brackets: {arguments.confidence:.0%} intervals over questions."
    print(visible("\n".join(text(tables, verdicts, calls, interval))), end="")
