"""Command `calibrate`: send archived judge prompts to the configured judge again and compare the verdicts, as a card.

An archive is a ledger, filled by `import` or by judges that are no longer served. Complete matches are judged again,
both games, with the stored prompts. Other tools do not store the system prompt, so it is added from the template that
the entry names. The card is {judge, archive, cells: [{benchmark, protocol, archive_judge, items, figures: {name:
{estimate, low, high, n}}}], …}; calibration.py explains the figures.
"""

import argparse
import itertools
import json
import math
import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from eval.archives.calibration import CARD, card_rows
from eval.benchmarks import Benchmark, of_protocol
from eval.judging.client import JudgeSession, Messages
from eval.judging.estimate import estimate_all
from eval.judging.judge import ask_for_verdict, readable
from eval.judging.rounds import ask_all
from eval.ledger.calls import CALLS, Entry, read_calls
from eval.ledger.index import INDEX, SINGLE, IndexEntry, read_index
from eval.protocols.templates import Templates, load_templates
from eval.protocols.verdicts import Value, rating, verdict
from eval.statistics.bootstrap import Resampling
from eval.tables.formats import markdown, number, with_interval
from eval.tables.ledger_aggregate import stored_value
from salsa.config.judge import Judge
from salsa.runtime.errors import UserError
from salsa.runtime.log import log
from salsa.runtime.outputs import output_file
from salsa.runtime.provenance import Run
from salsa.runtime.seeds import derive_seed
from salsa.runtime.settings import load_settings
from salsa.runtime.texts import visible

Cell = tuple[str, str, str]  # benchmark, protocol, archive's judge


@dataclass(frozen=True)
class Rejudged:
    """An archived verdict and the prompt to send again; `match` identifies the match it belongs to."""

    item: IndexEntry
    archive: Value
    messages: Messages
    match: str


def conversation(item: IndexEntry, entry: Entry, templates: Templates, benchmark: Benchmark) -> Messages:
    """The archived prompt, with the template's system prompt if the archive has none."""
    # Without follow-ups: they are asked again only if needed.
    messages = list(itertools.takewhile(lambda message: message["role"] != "assistant", entry["messages"]))
    if messages[0]["role"] == "system" or "archive" not in entry["parameters"]:
        return messages
    name = item.template or benchmark.unnamed_template
    if name is None or name not in templates.named:
        raise UserError(
            f"question {item.question_id}: the archive's prompt uses template {name}, whose system prompt is unknown: "
            "give its file with --templates"
        )
    system = templates.named[name].system
    return [*([{"role": "system", "content": system}] if system else []), *messages]


def matches(archive: Path, templates: Templates) -> tuple[dict[Cell, list[list[Rejudged]]], int]:
    """The answers or matches of each cell that can be judged again, sorted, and the number of those that cannot."""
    calls = read_calls(archive)
    by_match: dict[Cell, dict[str, list[Rejudged]]] = defaultdict(lambda: defaultdict(list))
    for item in read_index(archive):
        models = sorted(item.models)
        match = json.dumps([item.question_id, item.turn, models, item.sample])
        games = by_match[item.benchmark, item.protocol, item.judge][match]
        value = stored_value(item, calls, str(archive))
        if item.call is not None and value is not None and any(m["content"] for m in calls[item.call]["messages"]):
            messages = conversation(item, calls[item.call], templates, of_protocol(item.protocol))
            games.append(Rejudged(item, value, messages, match))
    complete = {
        cell: [games for _, games in sorted(cell_matches.items()) if len(games) == (1 if cell[1] == SINGLE else 2)]
        for cell, cell_matches in by_match.items()
    }
    return complete, sum(len(cell_matches) - len(complete[cell]) for cell, cell_matches in by_match.items())


def game_name(game: Rejudged) -> str:
    """Name of a game in messages."""
    return f"question {game.item.question_id}, turn {game.item.turn}, {' before '.join(game.item.models)}"


def draw_games(cells: dict[Cell, list[list[Rejudged]]], most: int | None, seed: int) -> list[Rejudged]:
    """Draw at most `most` matches of each cell, seeded by the cell's name; returns their games in order."""
    games = []
    for cell, cell_matches in sorted(cells.items()):
        if most is not None and most < len(cell_matches):
            draw = random.Random(derive_seed(seed, "calibrate", *cell))
            cell_matches = [cell_matches[number] for number in sorted(draw.sample(range(len(cell_matches)), most))]
        games += [game for match in cell_matches for game in match]
    return games


def comparison_row(game: Rejudged, judge: Value, cost: float | None) -> dict[str, Any]:
    """A row of the table that `comparison_figures` takes."""
    longer = None
    if game.item.lengths and game.item.lengths[0] != game.item.lengths[-1]:
        longer = "A" if game.item.lengths[0] > game.item.lengths[-1] else "B"
    return {
        **{"question_id": game.item.question_id, "match": game.match, "judge": judge, "cost": cost},
        "order": "ab" if game.item.models[0] <= game.item.models[-1] else "ba",
        "archive": verdict(str(game.archive)).side,
        "longer": longer,
    }


def rating_row(game: Rejudged, judge: Value, cost: float | None) -> dict[str, Any]:
    """A row of the table that `rating_figures` takes."""
    length = game.item.lengths[0] if game.item.lengths else None
    return {
        **{"question_id": game.item.question_id, "archive": game.archive, "judge": judge},
        **{"length": length, "cost": cost},
    }


def card_cells(games: list[Rejudged], answers: list[tuple[Value, float | None]], draw: Resampling) -> list[dict]:
    """The card's figures for each benchmark, protocol and archived judge."""
    rows: dict[Cell, list[dict[str, Any]]] = defaultdict(list)
    for game, (value, cost) in zip(games, answers, strict=True):
        row = rating_row if game.item.protocol == SINGLE else comparison_row
        rows[game.item.benchmark, game.item.protocol, game.item.judge].append(row(game, value, cost))
    cells = []
    for (benchmark, protocol, judge), part in rows.items():
        figures = CARD[protocol](pd.DataFrame(part), draw, "calibration", benchmark, protocol, judge)
        cells.append(
            {
                **{"benchmark": benchmark, "protocol": protocol, "archive_judge": judge, "items": len(part)},
                "figures": {name: as_json(figure._asdict()) for name, figure in figures.items()},
            }
        )
    return cells


def as_json(figure: dict[str, Any]) -> dict[str, Any]:
    """A figure with None for NaN."""
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in figure.items()}


def text(card: dict[str, Any]) -> str:
    """The card as text for a terminal."""
    rows = pd.DataFrame(card_rows(card))
    shown = pd.DataFrame({"figure": rows["figure"], "estimate": with_interval(rows, "estimate"), "n": rows["n"]})
    parts = []
    for cell, part in shown.groupby(rows["cell"], sort=False):
        parts.append(f"## {cell}\n\n{markdown(part, [])}")
    cost = f", cost {number(card['cost'], 4)}" if card["cost"] is not None else ""
    calls = f"{card['calls'] + card['calls_from_ledger']:,} calls{cost}"
    dates = " to ".join(dict.fromkeys((card["first_call"][:10], card["last_call"][:10])))
    return "\n".join([*parts, f"Judge: {card['judge']}, {dates}, {calls}. Brackets: intervals over n questions.\n"])


def run(arguments: argparse.Namespace) -> None:
    settings = load_settings(arguments.settings, Judge)
    templates = load_templates(arguments.templates)
    draw = Resampling(arguments.confidence, arguments.resamples, arguments.seed)
    cells, left_out = matches(arguments.archive, templates)
    games = draw_games(cells, arguments.items, arguments.seed)
    if not games:
        raise UserError(
            f"{arguments.archive}: no verdict has its text, its prompt and its other game: import an archive that has"
        )

    async def work(client: JudgeSession, game: Rejudged) -> tuple[Value, float | None]:
        if game.item.protocol == SINGLE:
            entries = [await client.ask(game.messages)]
            value: Value = rating(readable(entries[0]))
        else:
            benchmark = of_protocol(game.item.protocol)
            entries, result = await ask_for_verdict(client, benchmark, templates, game.messages)
            value = result.side if result else None
        costs = [entry["cost"] for entry in entries]
        return value, None if None in costs else sum(costs)

    if arguments.estimate:
        print(estimate_all(settings, arguments.ledger, games, work))
        return
    about = {"judge": settings.asked(), "items": arguments.items, "templates": templates.sha256}
    about |= {"confidence": draw.confidence, "resamples": draw.resamples}
    inputs = {name: arguments.archive / name for name in (CALLS, INDEX)}
    record = Run("calibrate", about, inputs, {"seed": arguments.seed})
    answers, calls = ask_all(settings, arguments.ledger, games, work, game_name)
    card = {"archive": str(arguments.archive), "left_out": left_out, **calls, "confidence": draw.confidence}
    card["dated"] = settings.kind == "endpoint"
    card["cells"] = card_cells(games, answers, draw)
    record.extra = calls
    with output_file(arguments.out, record) as path:
        path.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    print(visible(text(card)), end="")
    log.info("judged %d games again; left out %d without text, verdict or other game", len(games), left_out)
