"""Command `calibrate`: archived verdicts asked again of the configured judge, and what that says of it, as a card.

An archive is a ledger: one that `import` has filled, or one of judges that are no longer served. Whole matches are
asked again, both games, in the very words that were asked; the system prompt, which the published tools do not store,
is put before them by the template's name. The card is {judge, archive, cells: [{benchmark, protocol, archive_judge,
items, figures: {name: {estimate, low, high, n}}}], …}; eval/archives/calibration.py says what each figure is.
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
from eval.tables.aggregate import Resampling
from eval.tables.formats import markdown, number, with_interval
from eval.tables.ledger_aggregate import said
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
class Again:
    """An item, what the archive's judge said of it, and what is asked of the other."""

    item: IndexEntry
    archive: Value
    messages: Messages
    match: str


def conversation(item: IndexEntry, entry: Entry, templates: Templates, benchmark: Benchmark) -> Messages:
    """What was asked, with the system prompt of the template that the item names where the archive has none."""
    # A conversation that went on, because a verdict was missing, is begun anew.
    messages = list(itertools.takewhile(lambda message: message["role"] != "assistant", entry["messages"]))
    if messages[0]["role"] == "system" or "archive" not in entry["parameters"]:
        return messages
    name = item.template or benchmark.unnamed_template
    if name is None or name not in templates.named:
        raise UserError(
            f"question {item.question_id}: the archive's prompt is of template {name}, whose system prompt is not "
            "known: give its file by --templates"
        )
    system = templates.named[name].system
    return [*([{"role": "system", "content": system}] if system else []), *messages]


def matches(archive: Path, templates: Templates) -> tuple[dict[Cell, list[list[Again]]], int]:
    """Each cell's answers or matches that can be asked again, in an order of their own; how many cannot."""
    calls = read_calls(archive)
    found: dict[Cell, dict[str, list[Again]]] = defaultdict(lambda: defaultdict(list))
    for item in read_index(archive):
        models = sorted(item.models)
        match = json.dumps([item.question_id, item.turn, models, item.sample])
        again = found[item.benchmark, item.protocol, item.judge][match]
        value = said(item, calls, str(archive))
        if item.call is not None and value is not None and any(m["content"] for m in calls[item.call]["messages"]):
            asked = conversation(item, calls[item.call], templates, of_protocol(item.protocol))
            again.append(Again(item, value, asked, match))
    whole = {
        cell: [games for _, games in sorted(every.items()) if len(games) == (1 if cell[1] == SINGLE else 2)]
        for cell, every in found.items()
    }
    return whole, sum(len(every) - len(whole[cell]) for cell, every in found.items())


def name_of(again: Again) -> str:
    """What a message calls it."""
    return f"question {again.item.question_id}, turn {again.item.turn}, {' before '.join(again.item.models)}"


def chosen(cells: dict[Cell, list[list[Again]]], most: int | None, seed: int) -> list[Again]:
    """At most so many matches of each cell, drawn by the seed and the cell's name, in their order."""
    found = []
    for cell, every in sorted(cells.items()):
        if most is not None and most < len(every):
            draw = random.Random(derive_seed(seed, "calibrate", *cell))
            every = [every[number] for number in sorted(draw.sample(range(len(every)), most))]
        found += [again for match in every for again in match]
    return found


def row_of_comparison(again: Again, judge: Value, cost: float | None) -> dict[str, Any]:
    longer = None
    if again.item.lengths and again.item.lengths[0] != again.item.lengths[-1]:
        longer = "A" if again.item.lengths[0] > again.item.lengths[-1] else "B"
    return {
        **{"question_id": again.item.question_id, "match": again.match, "judge": judge, "cost": cost},
        "order": "ab" if again.item.models[0] <= again.item.models[-1] else "ba",
        "archive": verdict(str(again.archive)).side,
        "longer": longer,
    }


def row_of_rating(again: Again, judge: Value, cost: float | None) -> dict[str, Any]:
    length = again.item.lengths[0] if again.item.lengths else None
    return {
        **{"question_id": again.item.question_id, "archive": again.archive, "judge": judge},
        **{"length": length, "cost": cost},
    }


def cells_of_card(asked: list[Again], answers: list[tuple[Value, float | None]], draw: Resampling) -> list[dict]:
    """The figures of each benchmark, protocol and archive's judge."""
    rows: dict[Cell, list[dict[str, Any]]] = defaultdict(list)
    for again, (value, cost) in zip(asked, answers, strict=True):
        row = row_of_rating if again.item.protocol == SINGLE else row_of_comparison
        rows[again.item.benchmark, again.item.protocol, again.item.judge].append(row(again, value, cost))
    found = []
    for (benchmark, protocol, judge), part in rows.items():
        figures = CARD[protocol](pd.DataFrame(part), draw, "calibration", benchmark, protocol, judge)
        found.append(
            {
                **{"benchmark": benchmark, "protocol": protocol, "archive_judge": judge, "items": len(part)},
                "figures": {name: as_json(figure._asdict()) for name, figure in figures.items()},
            }
        )
    return found


def as_json(figure: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in figure.items()}


def text(card: dict[str, Any]) -> str:
    """The card for a terminal."""
    rows = pd.DataFrame(card_rows(card))
    shown = pd.DataFrame({"figure": rows["figure"], "estimate": with_interval(rows, "estimate"), "n": rows["n"]})
    said = []
    for cell, part in shown.groupby(rows["cell"], sort=False):
        said.append(f"## {cell}\n\n{markdown(part, [])}")
    cost = f", cost {number(card['cost'], 4)}" if card["cost"] is not None else ""
    asked = f"{card['calls'] + card['calls_from_ledger']:,} calls{cost}"
    dates = " to ".join(dict.fromkeys((card["first_call"][:10], card["last_call"][:10])))
    return "\n".join([*said, f"Judge: {card['judge']}, {dates}, {asked}. Brackets: intervals over n questions.\n"])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--archive", type=Path, required=True, help="a ledger with verdicts and their prompts")
    parser.add_argument("--settings", required=True, help="the config's judge section: JSON or FILE.yaml#judge")
    parser.add_argument("--ledger", type=Path, required=True, help="folder that calls are kept in, shared by all")
    parser.add_argument("--items", type=int, help="answers or matches of each benchmark and judge; default: all")
    parser.add_argument("--templates", metavar="T.jsonl", help="for system prompts: FastChat's judge_prompts.jsonl")
    Resampling.add_arguments(parser)
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", type=Path)
    target.add_argument("--estimate", action="store_true", help="print calls, tokens and cost, and ask nothing")


def run(arguments: argparse.Namespace) -> None:
    if arguments.items is not None and arguments.items < 1:
        raise UserError("--items: at least 1")
    settings = load_settings(arguments.settings, Judge)
    templates = load_templates(arguments.templates)
    draw = Resampling.of(arguments)
    cells, left_out = matches(arguments.archive, templates)
    asked = chosen(cells, arguments.items, arguments.seed)
    if not asked:
        raise UserError(f"{arguments.archive}: no verdict has its text, its prompt and its other game: import some")

    async def work(client: JudgeSession, again: Again) -> tuple[Value, float | None]:
        if again.item.protocol == SINGLE:
            entries = [await client.ask(again.messages)]
            value: Value = rating(readable(entries[0]))
        else:
            benchmark = of_protocol(again.item.protocol)
            entries, found = await ask_for_verdict(client, benchmark, templates, again.messages)
            value = found.side if found else None
        costs = [entry["cost"] for entry in entries]
        return value, None if None in costs else sum(costs)

    if arguments.estimate:
        print(estimate_all(settings, arguments.ledger, asked, work))
        return
    about = {"judge": settings.asked(), "items": arguments.items, "templates": templates.sha256}
    about |= {"confidence": draw.confidence, "resamples": draw.resamples}
    inputs = {name: arguments.archive / name for name in (CALLS, INDEX)}
    record = Run("calibrate", about, inputs, {"seed": arguments.seed})
    answers, calls = ask_all(settings, arguments.ledger, asked, work, name_of)
    card = {"archive": str(arguments.archive), "left_out": left_out, **calls, "confidence": draw.confidence}
    card["dated"] = settings.kind == "endpoint"
    card["cells"] = cells_of_card(asked, answers, draw)
    record.extra = calls
    with output_file(arguments.out, record) as path:
        path.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    print(visible(text(card)), end="")
    log.info("%d items asked again, %d left out: without text, verdict or other game", len(asked), left_out)
