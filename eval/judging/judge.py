"""Stage `judge`: two methods' answers to a benchmark, pair by pair of policies, each judged in both orders.

A line a question, turn and pair: {question_id, category, turn, a, b, template, lengths, imitating, games, points,
weight, consistent, flags}. The outcomes of `games` are in terms of a and b, `call` is the ledger's key, `lengths` are
the answers' characters, and `imitating` names the sides whose answers eval/protocols/imitation.py speaks of.
Adjusted win rate of a = sum of points / sum of weights.

The benchmark says what is asked, how its verdicts are read and what two games earn. Answers that are equal to the
letter are a tie without asking: in two orders, whatever a judge says of them cancels out.
"""

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.benchmarks import Benchmark, Question, find, load_questions, parse_benchmarks
from eval.benchmarks.base import POINTS, counted, without_verdict
from eval.judging.answers import load_answers
from eval.judging.client import Asks, Messages, judge_id
from eval.judging.estimate import estimate_all
from eval.judging.prompts import pair_messages
from eval.judging.rounds import ask_all
from eval.ledger.calls import FINISHED, Entry
from eval.ledger.index import Item, add_items
from eval.protocols.imitation import imitates
from eval.protocols.reasoning import without_reasoning
from eval.protocols.templates import Templates, load_templates
from eval.protocols.verdicts import Verdict, is_cut, label
from salsa.config.judge import Judge
from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import write_jsonl
from salsa.runtime.log import log
from salsa.runtime.outputs import output_file
from salsa.runtime.provenance import Run
from salsa.runtime.settings import load_settings

Row = dict[str, Any]
Game = dict[str, Any]


@dataclass(frozen=True)
class Match:
    """A question's turn, two policies' names, and their answers up to that turn."""

    question: Question
    turn: int
    names: tuple[str, str]
    answers: tuple[list[str], list[str]]

    def unanswered(self) -> bool:
        return min(map(len, self.answers)) < self.turn

    def lengths(self) -> tuple[int, int]:
        """Characters of the two answers to this turn."""
        a, b = (len(answers[self.turn - 1].strip()) for answers in self.answers)
        return a, b

    def identical(self) -> bool:
        return self.answers[0][: self.turn] == self.answers[1][: self.turn]


def outcome(found: Verdict, order: str) -> str:
    """A verdict on positions as one on policies; in order "ba" policy b's answer stood first."""
    if found.side == "tie":
        return "tie"
    return {"A": order[0], "B": order[1]}[found.side]


async def verdict_after_asking(
    client: Asks, benchmark: Benchmark, templates: Templates, messages: Messages
) -> tuple[list[Entry], Verdict | None]:
    """The calls, and the verdict of the last. A benchmark may ask once more, in the same conversation, where it is
    missing."""
    entries = [await client.ask(messages)]
    found = benchmark.read(readable(entries[0]))
    # A reply that was cut inside its reasoning leaves nothing to continue.
    said = without_reasoning(entries[0]["text"] or "")
    goes_on = entries[0]["outcome"] == "answered" and bool(said or not is_cut(entries[0]["finish_reason"]))
    if found is None and benchmark.again is not None and goes_on:
        again = [{"role": "assistant", "content": said}, *templates.messages(benchmark.again, {})]
        entries.append(await client.ask([*messages, *again]))
        found = benchmark.read(readable(entries[-1]))
    return entries, found


def game_name(match: Match, order: str) -> str:
    """What a message calls a game."""
    first, second = (match.names["ab".index(side)] for side in order)
    return f"question {match.question.question_id}, turn {match.turn}, {first} before {second}"


async def play(client: Asks, benchmark: Benchmark, templates: Templates, match: Match, order: str) -> Game:
    """One game."""
    shown = [list(match.answers["ab".index(side)][: match.turn]) for side in order]
    messages: Messages = pair_messages(benchmark, templates, match.question, match.turn, *shown)
    entries, found = await verdict_after_asking(client, benchmark, templates, messages)
    entry = entries[-1]
    game = {
        "order": order,
        "outcome": outcome(found, order) if found else undecided(entry),
        "strong": found is not None and found.strong,
    }
    return {**game, **call_of(entry)}


def readable(entry: Entry) -> str:
    """The text that a verdict may be read from: of an answer that was not cut, what follows its reasoning."""
    if entry["outcome"] != "answered" or is_cut(entry["finish_reason"]):
        return ""
    return without_reasoning(entry["text"])


def undecided(entry: Entry) -> str:
    """Why a call that says nothing to be counted does not."""
    if entry["outcome"] != "answered":
        return str(entry["outcome"])
    return "cut" if is_cut(entry["finish_reason"]) else "unparsed"


def warn_of_cut(name: str, missing: Mapping[str, int], settings: Judge) -> None:
    """Warns about replies that were cut at judge.max_tokens."""
    if missing.get("cut"):
        log.warning(
            "%s: %d of the judge's texts are cut at judge.max_tokens (%d), so they have no verdict: raise it, "
            "which asks all calls again (max_tokens is part of a call's key)",
            *(name, missing["cut"], settings.max_tokens),
        )


def call_of(entry: Entry) -> dict[str, str]:
    """Where the ledger keeps it, if it does."""
    return {"call": entry["key"]} if entry["outcome"] in FINISHED else {}


def points_and_weight(benchmark: Benchmark, games: list[Game]) -> tuple[float | None, float]:
    """What a match earns a, and how much it counts; nothing without verdicts."""
    decided = [game for game in games if game["outcome"] in POINTS]
    enough = 1 if benchmark.by_game else 2
    return benchmark.points(decided) if len(decided) >= enough else (None, 0)


def judgment(benchmark: Benchmark, templates: Templates, match: Match, games: list[Game]) -> Row:
    """The line of a match."""
    points, weight = points_and_weight(benchmark, games)
    flags = list(match.question.flags)
    flags += ["unanswered"] if match.unanswered() else ["identical"] if match.identical() else []
    template = benchmark.pair_template(match.question, match.turn)
    imitating = [
        side
        for side, answers in zip("ab", match.answers, strict=True)
        if imitates(answers[: match.turn], benchmark.grammar, templates.named.get(template))
    ]
    compared = all(game["outcome"] in POINTS for game in games) and weight > 0 and "identical" not in flags
    return {
        "question_id": match.question.question_id,
        "category": match.question.category,
        "turn": match.turn,
        "a": match.names[0],
        "b": match.names[1],
        "template": templates.named_in_full(template),
        "lengths": None if match.unanswered() else list(match.lengths()),
        "imitating": imitating,
        "games": games,
        "points": points,
        "weight": weight,
        "consistent": games[0]["outcome"] == games[1]["outcome"] if compared else None,
        "flags": flags,
    }


def items(benchmark: Benchmark, model: str, row: Row, who: dict[str, str]) -> Iterator[Item]:
    """A line's games as the ledger's index has them; policies of different models may share a name."""
    names = {side: f"{model}/{row[side]}" for side in "ab"}
    lengths = dict(zip("ab", row["lengths"] or (), strict=False))
    about = {key: row[key] for key in ("question_id", "category", "turn", "template")}
    about |= {"protocol": benchmark.grammar, "baseline": names["b"], "source": "judge", **who}
    for game in row["games"] or ({"order": "ab"}, {"order": "ba"}):
        yield Item(
            models=tuple(names[side] for side in game["order"]),
            lengths=tuple(lengths[side] for side in game["order"]) if lengths else None,
            **about,
            **verdict_of(benchmark, game),
        )


def verdict_of(benchmark: Benchmark, game: Game) -> dict[str, Any]:
    """Where a game's verdict is: in its call, unless there is none, or the benchmark reads in a way of its own."""
    if "outcome" not in game:
        return {"missing": "unanswered"}
    if "call" in game and type(benchmark).read is Benchmark.read:
        return {"call": game["call"]}
    if game["outcome"] not in POINTS:
        return {"missing": game["outcome"]}
    said = label(benchmark.grammar, game["outcome"], game["order"], game["strong"])
    return {"label": said, "identical": "call" not in game}


def matches(questions: list[Question], policy_pairs: list[tuple[str, str]], answers: dict[str, dict]) -> list[Match]:
    """All matches, by question, turn and pair."""
    return [
        Match(question, turn, pair, (answers[pair[0]][question.question_id], answers[pair[1]][question.question_id]))
        for question in questions
        for turn in range(1, len(question.turns) + 1)
        for pair in policy_pairs
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--generations", type=Path, required=True, help="folder with POLICY/BENCHMARK.jsonl")
    parser.add_argument(
        "--pair", nargs=2, action="append", required=True, metavar=("A", "B"), help="policies; give several"
    )
    parser.add_argument("--benchmark", required=True, metavar="NAME=JSON", help="the benchmark's name and settings")
    parser.add_argument("--settings", required=True, help="the config's judge section: JSON or FILE.yaml#judge")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--ledger", type=Path, required=True, help="folder that calls are kept in, shared by all")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", type=Path)
    target.add_argument("--estimate", action="store_true", help="print calls, tokens and cost, and ask nothing")


def run(arguments: argparse.Namespace) -> None:
    settings = load_settings(arguments.settings, Judge)
    [(name, chosen)] = parse_benchmarks([arguments.benchmark]).items()
    questions = load_questions(chosen, arguments.seed)
    benchmark = find(chosen.kind)
    templates = load_templates(chosen.judge_prompts, benchmark.templates)
    policy_pairs = [(a, b) for a, b in arguments.pair]
    if any(a == b for a, b in policy_pairs):
        raise UserError("--pair: a policy cannot meet itself: name two")
    files = {p: arguments.generations / p / f"{name}.jsonl" for p in sorted({p for pair in policy_pairs for p in pair})}
    said = {
        "judge": settings.asked(),
        "benchmark": {"name": name, **chosen.model_dump()},
        "pairs": policy_pairs,
    }
    record = Run("judge", {**said, "templates": templates.sha256}, files, {"seed": arguments.seed})
    answers = {policy: load_answers(path, questions) for policy, path in files.items()}
    every = matches(questions, policy_pairs, answers)
    asked = [match for match in every if not match.unanswered() and not match.identical()]
    games = [(match, order) for match in asked for order in ("ab", "ba")]

    async def work(client: Asks, item: tuple[Match, str]) -> Game:
        return await play(client, benchmark, templates, *item)

    if arguments.estimate:
        print(estimate_all(settings, arguments.ledger, games, work))
        return
    played, calls = ask_all(settings, arguments.ledger, games, work, lambda item: game_name(*item))
    found = {id(match): played[2 * i : 2 * i + 2] for i, match in enumerate(asked)}
    tie = [{"order": order, "outcome": "tie", "strong": False} for order in ("ab", "ba")]
    rows = [
        judgment(
            benchmark,
            templates,
            match,
            found.get(id(match), tie if match.identical() and not match.unanswered() else []),
        )
        for match in every
    ]
    who = {"benchmark": name, "judge": judge_id(settings)}
    model = arguments.generations.resolve().name
    add_items(arguments.ledger, (item for row in rows for item in items(benchmark, model, row, who)))
    covered = sum(row["weight"] > 0 for row in rows)
    missing = Counter(why for row in rows for why in without_verdict(row["games"]))
    record.extra = {**calls, "judgments": len(rows), "covered": covered, "games_without": missing}
    with output_file(arguments.out, record) as path:
        write_jsonl(path, rows)
    why = f" (games: {counted(missing)})" if missing else ""
    log.info("%s: %d of %d judgments have a verdict%s, %d new calls", name, covered, len(rows), why, calls["calls"])
    warn_of_cut(name, missing, settings)
