"""Judged answers for the report's sample browser: both answers, where they differ, and the judge's text of each game.

The page holds them as JSON:

comparisons   {name: {a, b}}: the methods of each comparison
pairs         the pairs of policies: {comparison, model, replicate, rl_seed, sft, policies: {a, b}, runs: {a, b}}
texts         questions, answers and judge's texts; other places name a text by its index
samples       {id, pair, benchmark, question, category, verdict, turns, games, run}, where
              turns are {user, a, b, differ: {a, b}} and games {order, outcome, strong, text}
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.benchmarks.base import POINTS
from eval.grid.layout import Grid, generation_file, judgment_file
from eval.ledger.calls import read_calls
from eval.report.differing_words import differing_spans
from eval.report.run_ids import PolicyPair, run_id
from salsa.runtime.jsonl import read_jsonl
from salsa.runtime.texts import visible

Row = dict[str, Any]
SAMPLES = 1000  # on a page
CHARACTERS = 6_000_000  # on a page
BOTH_AGREE = {"a": "first wins", "b": "second wins", "tie": "tie"}
ORDERS_DISAGREE, NO_VERDICT = "orders disagree", "no verdict"


def spread(rows: list[Any], count: int) -> list[Any]:
    """`count` evenly spaced rows, starting with the first; a selection that does not depend on outcomes."""
    return rows if len(rows) <= count else [rows[i * len(rows) // count] for i in range(count)]


def verdict(row: Row) -> str:
    """The outcome of a judgment in both orders."""
    outcomes = [game["outcome"] for game in row["games"]]
    if not outcomes or not all(outcome in POINTS for outcome in outcomes):
        return NO_VERDICT
    return BOTH_AGREE[outcomes[0]] if len(set(outcomes)) == 1 else ORDERS_DISAGREE


@dataclass
class Texts:
    """Texts by index, each stored once. Control characters are escaped."""

    texts: list[str] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)

    def add(self, text: str) -> int:
        """The index of a text."""
        text = visible(text)
        if text not in self.numbers:
            self.numbers[text] = len(self.texts)
            self.texts.append(text)
        return self.numbers[text]

    def characters(self) -> int:
        """Number of characters of all texts."""
        return sum(map(len, self.texts))


@dataclass(frozen=True)
class Cell:
    """The judgments of one comparison, model and benchmark whose answers differ, each with its file's run id."""

    comparison: str
    model: str
    benchmark: str
    judgments: list[tuple[Row, str | None]]
    identical: int


def read_cells(results: Path, grid: Grid) -> Iterator[Cell]:
    """The judgments of the grid, cell by cell. Identical answers are only counted: there is nothing to compare."""
    for comparison in grid.comparisons:
        for model in grid.models:
            for benchmark in grid.benchmarks:
                judgments, identical = [], 0
                for replicate in grid.replicates:
                    file = judgment_file(results, model, benchmark, comparison, replicate)
                    made_by = run_id(file)
                    for row in read_jsonl(file):
                        if "identical" in row["flags"]:
                            identical += 1
                        else:
                            judgments.append((row, made_by))
                yield Cell(comparison, model, benchmark, judgments, identical)


class Answers:
    """Answers of policies by question, read when they are first needed."""

    def __init__(self, results: Path):
        self.results = results
        self.files: dict[Path, dict[str, list[Row]]] = {}

    def turns(self, model: str, policy: str, benchmark: str, question: str) -> list[Row]:
        """The dialogue of a policy."""
        file = generation_file(self.results, model, policy, benchmark)
        if file not in self.files:
            self.files[file] = {row["question_id"]: row["turns"] for row in read_jsonl(file)}
        return self.files[file][question]


def dialogue(texts: Texts, a: list[Row], b: list[Row]) -> list[Row]:
    """Both answers to each turn, and the spans in which they differ. An answer is None if a policy gave none."""
    turns = []
    for number in range(max(len(a), len(b))):
        turn: Row = {"user": None, "a": None, "b": None, "differ": {"a": [], "b": []}}
        for side, given in (("a", a), ("b", b)):
            if number < len(given):
                turn["user"], turn[side] = (texts.add(given[number][name]) for name in ("user", "assistant"))
        if turn["a"] is not None and turn["b"] is not None:
            spans = differing_spans(texts.texts[turn["a"]], texts.texts[turn["b"]])
            turn["differ"] = dict(zip("ab", spans, strict=True))
        turns.append(turn)
    return turns


def games(texts: Texts, row: Row, calls: Mapping[str, Row]) -> list[Row]:
    """The games of a judgment with the judge's texts; None where the ledger has none."""
    played = []
    for game in row["games"]:
        text = calls.get(game.get("call", ""), {}).get("text")
        number = None if text is None else texts.add(text)
        played.append({name: game[name] for name in ("order", "outcome", "strong")} | {"text": number})
    return played


def select(
    cells: list[Cell], in_each: int, pairs: Mapping[tuple[str, str, str, str], int], answers: Answers, calls: Mapping
) -> tuple[Texts, list[Row]]:
    """The texts and the samples of all cells, `in_each` of each."""
    texts, samples = Texts(), []
    for cell in cells:
        for row, made_by in spread(cell.judgments, in_each):
            place = (cell.comparison, cell.model, cell.benchmark)
            a, b = (answers.turns(cell.model, row[side], cell.benchmark, row["question_id"]) for side in "ab")
            samples.append(
                {
                    "id": visible("/".join([*place, row["a"], row["b"], row["question_id"], str(row["turn"])])),
                    "pair": pairs[cell.comparison, cell.model, row["a"], row["b"]],
                    "benchmark": cell.benchmark,
                    "question": visible(row["question_id"]),
                    "category": visible(row["category"]),
                    "verdict": verdict(row),
                    "turns": dialogue(texts, a[: row["turn"]], b[: row["turn"]]),
                    "games": games(texts, row, calls),
                    "run": made_by,
                }
            )
    return texts, samples


def browser_data(results: Path, grid: Grid, pairs: Sequence[PolicyPair], ledger: Path | None) -> Row:
    """The data of the sample browser, with the number of judgments that the samples stand for."""
    cells = list(read_cells(results, grid))
    answers, calls = Answers(results), read_calls(ledger, without=("messages",)) if ledger else {}
    numbers = {(pair.comparison, pair.model, pair.a, pair.b): number for number, pair in enumerate(pairs)}
    in_each = max(1, SAMPLES // max(1, len(cells)))
    texts, samples = select(cells, in_each, numbers, answers, calls)
    while in_each > 1 and texts.characters() > CHARACTERS:
        in_each = max(1, min(in_each - 1, in_each * CHARACTERS // texts.characters()))
        texts, samples = select(cells, in_each, numbers, answers, calls)
    return {
        "comparisons": {name: sides.model_dump(include={"a", "b"}) for name, sides in grid.comparisons.items()},
        "benchmarks": grid.benchmarks,
        "models": grid.models,
        "pairs": [pair.for_page() for pair in pairs],
        "texts": texts.texts,
        "samples": samples,
        "judgments": sum(len(cell.judgments) for cell in cells),
        "identical": sum(cell.identical for cell in cells),
    }
