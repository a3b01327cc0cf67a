"""Verdicts in the published tools' own files, as FastChat's llm_judge and arena-hard-auto wrote them.

fastchat_single     {question_id, model, judge: [name, template], user_prompt, judgment, score, turn, tstamp}
fastchat_pair       {question_id, model_1, model_2, g1_winner, g2_winner, judge: [name, template], g1_user_prompt,
                    g1_judgment, g2_user_prompt, g2_judgment, turn, tstamp}; the second game shows model_2 first
arena_hard_battles  {question_id, model, judge, games: [{user_prompt, judgment, score}, …]}, the first game showing
                    the baseline first; later {uid, model, baseline, games: [{prompt, judgment: {answer}, score}, …]};
                    or the battles that show_result.py makes of them: {question_id, model_a, model_b, winner}, in which
                    a strong verdict stands three times and the texts are gone

A reader takes a line to what it says, and raises a KeyError, TypeError or ValueError where it cannot. FastChat stores
a score of -1 or the winner "error", Arena-Hard a score of null, where it has read none.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from eval.benchmarks.arena_hard import BASELINE, STRONG_WEIGHT
from eval.benchmarks.mt_bench import published_category
from eval.ledger.index import IndexEntry, Protocol
from eval.protocols.prompt_parsing import parse_judge_prompt
from eval.protocols.templates import Messages
from eval.protocols.verdicts import canonical, label

Row = dict[str, Any]
Stored = str | float | None
Dropped = list[tuple[int, str]]  # lines, and why
UNKNOWN = "unknown"
AGAIN = "judged again further down"
FIRST_SHOWN = {"model_1": "A", "model_2": "B", "tie": "C"}
SECOND_SHOWN = {**FIRST_SHOWN, "model_1": "B", "model_2": "A"}


@dataclass(frozen=True)
class Archived:
    """An item with the judge's text about it (None: there was no reply) and what the tool read in that text.

    Where the file keeps no texts, the item has what was read as its label.
    """

    item: IndexEntry
    line: int
    text: str | None = None
    messages: tuple[tuple[str, str], ...] = ()  # role and content
    stored: Stored = None
    date: str | None = None

    def conversation(self) -> Messages:
        return [{"role": role, "content": content} for role, content in self.messages]


def judge_of(row: Row) -> tuple[str, str | None]:
    """Name and template; FastChat keeps a pair, Arena-Hard the name alone, and battles nothing."""
    judge = row.get("judge", UNKNOWN)
    name, template = judge if isinstance(judge, list) else (judge, None)
    if not isinstance(name, str):
        raise ValueError("judge is no name")
    return name, template


def date_of(row: Row) -> str | None:
    stamp = row.get("tstamp")
    return None if stamp is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(float(stamp)))


def archived(line: int, row: Row, prompt: Any, said: Any, stored: Stored, **item: Any) -> Archived:
    """A text (or {answer: text}) about a prompt (a text, or messages)."""
    name, template = judge_of(row)
    if isinstance(prompt, str):
        messages: tuple[tuple[str, str], ...] = (("user", prompt),)
    else:
        messages = tuple((message["role"], message["content"]) for message in prompt or ())
    shown = parse_judge_prompt(messages[-1][1]) if messages else None
    lengths = tuple(map(len, shown.answers)) if shown and len(shown.answers) == len(item["models"]) else None
    text = said.get("answer") if isinstance(said, dict) else said
    if not isinstance(text, str | None):
        raise ValueError("a judgment that is no text")
    about = IndexEntry(judge=name, template=template, lengths=lengths, **item)
    return Archived(about, line, text, messages, stored, date_of(row))


def of_mt_bench(row: Row, protocol: Protocol, source: str) -> Row:
    name = str(row["question_id"])
    return {
        **{"protocol": protocol, "benchmark": "mt_bench", "question_id": name, "turn": int(row.get("turn", 1))},
        **{"category": published_category(name), "source": source},
    }


def fastchat_single(line: int, row: Row) -> list[Archived]:
    about = of_mt_bench(row, "mt_bench_single", "fastchat_single")
    rating = None if row["score"] in (-1, None) else float(row["score"])
    return [archived(line, row, row.get("user_prompt"), row["judgment"], rating, models=(str(row["model"]),), **about)]


def fastchat_pair(line: int, row: Row) -> list[Archived]:
    about = of_mt_bench(row, "mt_bench_pair", "fastchat_pair")
    models = (str(row["model_1"]), str(row["model_2"]))
    if models[0] == models[1]:
        raise ValueError(f"{models[0]} meets itself")
    first = FIRST_SHOWN.get(row["g1_winner"]), row.get("g1_user_prompt"), row["g1_judgment"]
    second = SECOND_SHOWN.get(row["g2_winner"]), row.get("g2_user_prompt"), row["g2_judgment"]
    return [
        archived(line, row, prompt, said, stored, models=shown, **about)
        for (stored, prompt, said), shown in ((first, models), (second, models[::-1]))
    ]


def arena_hard_judgment(line: int, row: Row) -> list[Archived]:
    model, baseline = str(row["model"]), str(row.get("baseline", BASELINE))
    if model == baseline:
        raise ValueError(f"{model} meets itself")
    about = {
        **{"protocol": "arena_hard", "benchmark": "arena_hard", "baseline": baseline, "source": "arena_hard_judgment"},
        **{"question_id": str(row["question_id"] if "question_id" in row else row["uid"])},
        **{"category": row.get("category"), "turn": 1},
    }
    found = []
    for game, shown in zip(row["games"], ((baseline, model), (model, baseline)), strict=False):
        game = game or {"judgment": None, "score": None}
        stored = None if game["score"] is None else canonical(game["score"])
        prompt = game.get("user_prompt", game.get("prompt"))
        found.append(archived(line, row, prompt, game["judgment"], stored, models=shown, **about))
    if not found:
        raise ValueError("no games")
    return found


FORMATS: dict[str, Callable[[int, Row], list[Archived]]] = {
    "fastchat_single": fastchat_single,
    "fastchat_pair": fastchat_pair,
    "arena_hard_battles": arena_hard_judgment,
}


def games_in(winners: list[str]) -> list[tuple[str, int]]:
    """The fewest games, (winner, weight), that give these rows: three equal ones are a strong verdict."""
    games = []
    for winner in ("model_a", "model_b", "tie"):
        count = winners.count(winner)
        strong = 0 if winner == "tie" else count // STRONG_WEIGHT
        games += [(winner, STRONG_WEIGHT)] * strong + [(winner, 1)] * (count - STRONG_WEIGHT * strong)
    return games


Battle = tuple[int, str, tuple[str, str, str, str]]


def battle(line: int, row: Row) -> Battle:
    """A row's line, its winner, and the question, models and judge."""
    if row["winner"] not in ("model_a", "model_b", "tie"):
        raise ValueError("winner is not model_a, model_b or tie")
    question, model_a, model_b = (str(row[name]) for name in ("question_id", "model_a", "model_b"))
    return line, row["winner"], (question, model_a, model_b, judge_of(row)[0])


def games_of_battles(battles: list[Battle]) -> tuple[list[Archived], Dropped]:
    """Battles as games, and the rows that an evaluation made over again has replaced.

    A question's rows are at most two games, wherever they stand. Where they make more, each run of neighbouring rows
    is taken for an evaluation, and the last counts. Which game showed whom first is not in the file; it is taken to
    be as the tool plays them, and matters to no figure but who won from the first place.
    """
    runs: dict[tuple[str, str, str, str], list[list[tuple[int, str]]]] = {}
    last = None
    for line, winner, key in battles:
        if key != last:
            runs.setdefault(key, []).append([])
        runs[key][-1].append((line, winner))
        last = key
    everywhere = set.intersection(*({model_a, model_b} for _, _, (_, model_a, model_b, _) in battles))
    found, replaced = [], []
    for (question, model_a, model_b, judge), evaluations in runs.items():
        every = [entry for evaluation in evaluations for entry in evaluation]
        if len(games_in([winner for _, winner in every])) > 2 and len(evaluations) > 1:
            replaced += [(line, AGAIN) for line, _ in every[: -len(evaluations[-1])]]
            every = evaluations[-1]
        baseline = model_b if everywhere == {model_b} else model_a
        for number, (winner, weight) in enumerate(games_in([winner for _, winner in every])):
            order = "ba" if number % 2 else "ab"
            item = IndexEntry(
                protocol="arena_hard",
                benchmark="arena_hard",
                judge=judge,
                question_id=question,
                turn=1,
                models=(model_a, model_b) if order == "ab" else (model_b, model_a),
                baseline=baseline,
                source="arena_hard_battles",
                sample=number // 2,
                label=label("arena_hard", winner.removeprefix("model_"), order, weight == STRONG_WEIGHT),
            )
            found.append(Archived(item, every[0][0]))
    return found, replaced


def read_rows(form: str, rows: Iterable[tuple[int, Row]]) -> tuple[list[Archived], Dropped]:
    """What a file's rows say, in its order, and those that are not of this form."""
    found: list[Archived] = []
    battles: list[Battle] = []
    dropped: Dropped = []
    for line, row in rows:
        try:
            if form == "arena_hard_battles" and "winner" in row:
                battles.append(battle(line, row))
            else:
                found += FORMATS[form](line, row)
        except KeyError as error:
            dropped.append((line, f"no {error.args[0]}"))
        except (ValueError, TypeError, AttributeError) as error:
            dropped.append((line, f"not of this form: {error}".partition("\n")[0]))
    games, replaced = games_of_battles(battles) if battles else ([], [])
    return found + games, dropped + replaced
