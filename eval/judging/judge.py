"""Stage `judge`: compare two methods on a benchmark, policy by policy, in both orders.

Output, one line per question, turn and pair: {question_id, category, turn, a, b, template, lengths, imitating, games,
points, weight, consistent, flags}. Outcomes in `games` are in terms of a and b; `call` is the ledger key; `lengths` are
the answers' characters; `imitating` names the sides whose answers imitate a verdict (eval/protocols/imitation.py). The
adjusted win rate of a is sum(points) / sum(weight).

The benchmark defines the prompts, the verdict grammar, and the points of two games. Equal answers are a tie without a
call, because in two orders any verdict on them cancels out.
"""

import argparse
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.benchmarks import Benchmark, Question
from eval.benchmarks.base import POINTS, format_counts, missing_verdicts
from eval.judging.answers import load_answers
from eval.judging.client import JudgeSession, Messages, judge_id
from eval.judging.estimate import estimate_all
from eval.judging.prompts import pair_messages
from eval.judging.rounds import ask_all
from eval.judging.task import JudgingTask
from eval.ledger.calls import FINISHED, Entry
from eval.ledger.index import IndexEntry, add_to_index
from eval.protocols.imitation import imitates
from eval.protocols.reasoning import without_reasoning
from eval.protocols.templates import Templates
from eval.protocols.verdicts import Verdict, is_cut, label
from salsa.config.judge import Judge
from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import write_jsonl
from salsa.runtime.log import log
from salsa.runtime.outputs import output_file
from salsa.runtime.provenance import Run

Row = dict[str, Any]
Game = dict[str, Any]


@dataclass(frozen=True)
class Match:
    """One turn of a question, with two policies and their answers up to that turn."""

    question: Question
    turn: int
    names: tuple[str, str]
    answers: tuple[list[str], list[str]]

    def unanswered(self) -> bool:
        """Whether a policy has no answer to this turn."""
        return min(map(len, self.answers)) < self.turn

    def lengths(self) -> tuple[int, int]:
        """Characters of both answers to this turn."""
        a, b = (len(answers[self.turn - 1].strip()) for answers in self.answers)
        return a, b

    def identical(self) -> bool:
        """Whether both policies gave the same answers up to this turn."""
        return self.answers[0][: self.turn] == self.answers[1][: self.turn]


def outcome(verdict: Verdict, order: str) -> str:
    """Translate a verdict on positions to policies. Order "ba" means that policy b's answer was shown first."""
    if verdict.side == "tie":
        return "tie"
    return {"A": order[0], "B": order[1]}[verdict.side]


async def ask_for_verdict(
    client: JudgeSession, benchmark: Benchmark, templates: Templates, messages: Messages
) -> tuple[list[Entry], Verdict | None]:
    """Ask the judge; returns its ledger entries and the verdict, if any.

    If the reply has no verdict, a benchmark may follow up once in the same conversation.
    """
    entries = [await client.ask(messages)]
    verdict = benchmark.read(readable(entries[0]))
    # A reply that was cut inside its reasoning leaves nothing to follow up on.
    reply = without_reasoning(entries[0]["text"] or "")
    can_follow_up = entries[0]["outcome"] == "answered" and bool(reply or not is_cut(entries[0]["finish_reason"]))
    if verdict is None and benchmark.again is not None and can_follow_up:
        again = [{"role": "assistant", "content": reply}, *templates.messages(benchmark.again, {})]
        entries.append(await client.ask([*messages, *again]))
        verdict = benchmark.read(readable(entries[-1]))
    return entries, verdict


def game_name(match: Match, order: str) -> str:
    """Name of a game in messages."""
    first, second = (match.names["ab".index(side)] for side in order)
    return f"question {match.question.question_id}, turn {match.turn}, {first} before {second}"


async def play(client: JudgeSession, benchmark: Benchmark, templates: Templates, match: Match, order: str) -> Game:
    """Judge a match in one order."""
    shown = [list(match.answers["ab".index(side)][: match.turn]) for side in order]
    messages: Messages = pair_messages(benchmark, templates, match.question, match.turn, *shown)
    entries, verdict = await ask_for_verdict(client, benchmark, templates, messages)
    entry = entries[-1]
    game = {
        "order": order,
        "outcome": outcome(verdict, order) if verdict else missing_reason(entry),
        "strong": verdict is not None and verdict.strong,
    }
    return {**game, **call_reference(entry)}


def readable(entry: Entry) -> str:
    """The text to read a verdict from: the reply without its reasoning, or nothing if it was cut."""
    if entry["outcome"] != "answered" or is_cut(entry["finish_reason"]):
        return ""
    return without_reasoning(entry["text"])


def missing_reason(entry: Entry) -> str:
    """Why a call has no verdict."""
    if entry["outcome"] != "answered":
        return str(entry["outcome"])
    return "cut" if is_cut(entry["finish_reason"]) else "unparsed"


def warn_of_cut(name: str, missing: Mapping[str, int], settings: Judge) -> None:
    """Warn about replies that were cut at judge.max_tokens."""
    if missing.get("cut"):
        log.warning(
            "%s: %d of the judge's texts are cut at judge.max_tokens (%d) and have no verdict: raise it; all calls are "
            "then made again, because max_tokens is part of a call's key",
            *(name, missing["cut"], settings.max_tokens),
        )


def call_reference(entry: Entry) -> dict[str, str]:
    """The ledger key of a finished call."""
    return {"call": entry["key"]} if entry["outcome"] in FINISHED else {}


def points_and_weight(benchmark: Benchmark, games: list[Game]) -> tuple[float | None, float]:
    """Points of a and weight of a match; (None, 0) without enough verdicts."""
    decided = [game for game in games if game["outcome"] in POINTS]
    enough = 1 if benchmark.by_game else 2
    return benchmark.points(decided) if len(decided) >= enough else (None, 0)


def judgment(benchmark: Benchmark, templates: Templates, match: Match, games: list[Game]) -> Row:
    """The output row of a match."""
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
        "template": templates.full_name(template),
        "lengths": None if match.unanswered() else list(match.lengths()),
        "imitating": imitating,
        "games": games,
        "points": points,
        "weight": weight,
        "consistent": games[0]["outcome"] == games[1]["outcome"] if compared else None,
        "flags": flags,
    }


def index_entries(benchmark: Benchmark, model: str, row: Row, who: dict[str, str]) -> Iterator[IndexEntry]:
    """The games of a row as entries of the ledger's index. Policies are named MODEL/POLICY there."""
    names = {side: f"{model}/{row[side]}" for side in "ab"}
    lengths = dict(zip("ab", row["lengths"] or (), strict=False))
    about = {key: row[key] for key in ("question_id", "category", "turn", "template")}
    about |= {"protocol": benchmark.grammar, "baseline": names["b"], "source": "judge", **who}
    for game in row["games"] or ({"order": "ab"}, {"order": "ba"}):
        yield IndexEntry(
            models=tuple(names[side] for side in game["order"]),
            lengths=tuple(lengths[side] for side in game["order"]) if lengths else None,
            **about,
            **stored_verdict(benchmark, game),
        )


def stored_verdict(benchmark: Benchmark, game: Game) -> dict[str, Any]:
    """Where the index finds a game's verdict: in its call, or as a label if the benchmark has its own grammar."""
    if "outcome" not in game:
        return {"missing": "unanswered"}
    if "call" in game and type(benchmark).read is Benchmark.read:
        return {"call": game["call"]}
    if game["outcome"] not in POINTS:
        return {"missing": game["outcome"]}
    verdict_label = label(benchmark.grammar, game["outcome"], game["order"], game["strong"])
    return {"label": verdict_label, "identical": "call" not in game}


def matches(questions: list[Question], policy_pairs: list[tuple[str, str]], answers: dict[str, dict]) -> list[Match]:
    """All matches, ordered by question, turn and pair."""
    return [
        Match(question, turn, pair, (answers[pair[0]][question.question_id], answers[pair[1]][question.question_id]))
        for question in questions
        for turn in range(1, len(question.turns) + 1)
        for pair in policy_pairs
    ]


def tie(match: Match) -> list[Game]:
    """The games of a match that needs no judge: two ties for equal answers, none where an answer is missing."""
    if match.unanswered():
        return []
    return [{"order": order, "outcome": "tie", "strong": False} for order in ("ab", "ba")]


def judge_matches(
    judge: Judge, ledger: Path, benchmark: Benchmark, templates: Templates, all_matches: Sequence[Match]
) -> tuple[list[Row], dict[str, Any]]:
    """Judge matches in both orders; returns a row per match and facts about the calls for run.json."""
    games, work = to_play(all_matches, benchmark, templates)
    played, calls = ask_all(judge, ledger, games, work, lambda item: game_name(*item))
    games_of: dict[int, list[Game]] = defaultdict(list)
    for (match, _), game in zip(games, played, strict=True):
        games_of[id(match)].append(game)
    rows = [judgment(benchmark, templates, match, games_of.get(id(match)) or tie(match)) for match in all_matches]
    return rows, calls


def to_play(
    all_matches: Sequence[Match], benchmark: Benchmark, templates: Templates
) -> tuple[list[tuple[Match, str]], Callable[[JudgeSession, tuple[Match, str]], Awaitable[Game]]]:
    """The games that need the judge, and how one is judged. Each match is judged in both orders."""
    to_judge = [match for match in all_matches if not match.unanswered() and not match.identical()]

    async def work(client: JudgeSession, game: tuple[Match, str]) -> Game:
        return await play(client, benchmark, templates, *game)

    return [(match, order) for match in to_judge for order in ("ab", "ba")], work


def run(arguments: argparse.Namespace) -> None:
    task = JudgingTask.from_arguments(arguments)
    name, benchmark, templates, questions = task.name, task.benchmark, task.templates, task.questions
    policy_pairs = [(a, b) for a, b in arguments.pair]
    if any(a == b for a, b in policy_pairs):
        raise UserError("--pair: a policy cannot be compared with itself: name two")
    files = {p: arguments.generations / p / f"{name}.jsonl" for p in sorted({p for pair in policy_pairs for p in pair})}
    record = Run("judge", {**task.recorded(), "pairs": policy_pairs}, files, {"seed": arguments.seed})
    answers = {policy: load_answers(path, questions) for policy, path in files.items()}
    all_matches = matches(questions, policy_pairs, answers)
    if arguments.estimate:
        print(estimate_all(task.judge, arguments.ledger, *to_play(all_matches, benchmark, templates)))
        return
    rows, calls = judge_matches(task.judge, arguments.ledger, benchmark, templates, all_matches)
    who = {"benchmark": name, "judge": judge_id(task.judge)}
    model = arguments.generations.resolve().name
    entries = (entry for row in rows for entry in index_entries(benchmark, model, row, who))
    add_to_index(arguments.ledger, entries)
    covered = sum(row["weight"] > 0 for row in rows)
    missing = Counter(why for row in rows for why in missing_verdicts(row["games"]))
    record.extra = {**calls, "judgments": len(rows), "covered": covered, "games_without": missing}
    with output_file(arguments.out, record) as path:
        write_jsonl(path, rows)
    why = f" (games: {format_counts(missing)})" if missing else ""
    log.info("%s: %d of %d judgments have a verdict%s, %d new calls", name, covered, len(rows), why, calls["calls"])
    warn_of_cut(name, missing, task.judge)
