"""Read verdict files of FastChat's llm_judge and of arena-hard-auto.

fastchat_single     {question_id, model, judge: [name, template], user_prompt, judgment, score, turn, tstamp}
fastchat_pair       {question_id, model_1, model_2, g1_winner, g2_winner, judge: [name, template], g1_user_prompt,
                    g1_judgment, g2_user_prompt, g2_judgment, turn, tstamp}; the second game shows model_2 first
arena_hard_battles  {question_id, model, judge, games: [{user_prompt, judgment, score}, …]}, the first game showing
                    the baseline first; later {uid, model, baseline, games: [{prompt, judgment: {answer}, score}, …]};
                    or the battles that show_result.py derives: {question_id, model_a, model_b, winner}, without texts,
                    in which a strong verdict is three rows

A reader converts one line, and raises a KeyError, TypeError or ValueError if it cannot. If a tool found no verdict,
FastChat stores the score -1 or the winner "error", and Arena-Hard the score null.
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
Dropped = list[tuple[int, str]]  # line numbers and reasons
UNKNOWN = "unknown"
AGAIN = "judged again further down"
FIRST_SHOWN = {"model_1": "A", "model_2": "B", "tie": "C"}
SECOND_SHOWN = {**FIRST_SHOWN, "model_1": "B", "model_2": "A"}


@dataclass(frozen=True)
class Archived:
    """An archived verdict: its index entry, the judge's reply (None if there was none) and the verdict the tool stored.

    If the file has no replies, the stored verdict is the entry's label.
    """

    item: IndexEntry
    line: int
    text: str | None = None
    messages: tuple[tuple[str, str], ...] = ()  # role and content
    stored: Stored = None
    date: str | None = None

    def conversation(self) -> Messages:
        """The judge prompt as messages."""
        return [{"role": role, "content": content} for role, content in self.messages]


def judge_of(row: Row) -> tuple[str, str | None]:
    """The judge's name and template: FastChat stores both, Arena-Hard only the name, battles neither."""
    judge = row.get("judge", UNKNOWN)
    name, template = judge if isinstance(judge, list) else (judge, None)
    if not isinstance(name, str):
        raise ValueError("judge is not a name")
    return name, template


def date_of(row: Row) -> str | None:
    """Date of the verdict, if stored."""
    stamp = row.get("tstamp")
    return None if stamp is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(float(stamp)))


def archived(line: int, row: Row, prompt: Any, reply: Any, stored: Stored, **item: Any) -> Archived:
    """Build an Archived from a prompt (text or messages) and a reply (text or {answer: text})."""
    name, template = judge_of(row)
    if isinstance(prompt, str):
        messages: tuple[tuple[str, str], ...] = (("user", prompt),)
    else:
        messages = tuple((message["role"], message["content"]) for message in prompt or ())
    shown = parse_judge_prompt(messages[-1][1]) if messages else None
    lengths = tuple(map(len, shown.answers)) if shown and len(shown.answers) == len(item["models"]) else None
    text = reply.get("answer") if isinstance(reply, dict) else reply
    if not isinstance(text, str | None):
        raise ValueError("a judgment is not text")
    entry = IndexEntry(judge=name, template=template, lengths=lengths, **item)
    return Archived(entry, line, text, messages, stored, date_of(row))


def mt_bench_fields(row: Row, protocol: Protocol, source: str) -> Row:
    """Fields of the index entry that FastChat's formats share."""
    name = str(row["question_id"])
    return {
        **{"protocol": protocol, "benchmark": "mt_bench", "question_id": name, "turn": int(row.get("turn", 1))},
        **{"category": published_category(name), "source": source},
    }


def fastchat_single(line: int, row: Row) -> list[Archived]:
    """Read a line of FastChat's single-answer grading."""
    about = mt_bench_fields(row, "mt_bench_single", "fastchat_single")
    rating = None if row["score"] in (-1, None) else float(row["score"])
    return [archived(line, row, row.get("user_prompt"), row["judgment"], rating, models=(str(row["model"]),), **about)]


def fastchat_pair(line: int, row: Row) -> list[Archived]:
    """Read a line of FastChat's pairwise comparison: two games."""
    about = mt_bench_fields(row, "mt_bench_pair", "fastchat_pair")
    models = (str(row["model_1"]), str(row["model_2"]))
    if models[0] == models[1]:
        raise ValueError(f"{models[0]} is compared with itself")
    first = FIRST_SHOWN.get(row["g1_winner"]), row.get("g1_user_prompt"), row["g1_judgment"]
    second = SECOND_SHOWN.get(row["g2_winner"]), row.get("g2_user_prompt"), row["g2_judgment"]
    return [
        archived(line, row, prompt, reply, stored, models=shown, **about)
        for (stored, prompt, reply), shown in ((first, models), (second, models[::-1]))
    ]


def arena_hard_judgment(line: int, row: Row) -> list[Archived]:
    """Read a line of Arena-Hard's judgments: up to two games."""
    model, baseline = str(row["model"]), str(row.get("baseline", BASELINE))
    if model == baseline:
        raise ValueError(f"{model} is compared with itself")
    about = {
        **{"protocol": "arena_hard", "benchmark": "arena_hard", "baseline": baseline, "source": "arena_hard_judgment"},
        **{"question_id": str(row["question_id"] if "question_id" in row else row["uid"])},
        **{"category": row.get("category"), "turn": 1},
    }
    games = []
    for game, shown in zip(row["games"], ((baseline, model), (model, baseline)), strict=False):
        game = game or {"judgment": None, "score": None}
        stored = None if game["score"] is None else canonical(game["score"])
        prompt = game.get("user_prompt", game.get("prompt"))
        games.append(archived(line, row, prompt, game["judgment"], stored, models=shown, **about))
    if not games:
        raise ValueError("no games")
    return games


FORMATS: dict[str, Callable[[int, Row], list[Archived]]] = {
    "fastchat_single": fastchat_single,
    "fastchat_pair": fastchat_pair,
    "arena_hard_battles": arena_hard_judgment,
}


def games_in(winners: list[str]) -> list[tuple[str, int]]:
    """The smallest number of games (winner, weight) that explains these rows; three equal rows are a strong verdict."""
    games = []
    for winner in ("model_a", "model_b", "tie"):
        count = winners.count(winner)
        strong = 0 if winner == "tie" else count // STRONG_WEIGHT
        games += [(winner, STRONG_WEIGHT)] * strong + [(winner, 1)] * (count - STRONG_WEIGHT * strong)
    return games


Battle = tuple[int, str, tuple[str, str, str, str]]


def battle(line: int, row: Row) -> Battle:
    """Read a battle: line number, winner, and (question, model_a, model_b, judge)."""
    if row["winner"] not in ("model_a", "model_b", "tie"):
        raise ValueError("winner is not model_a, model_b or tie")
    question, model_a, model_b = (str(row[name]) for name in ("question_id", "model_a", "model_b"))
    return line, row["winner"], (question, model_a, model_b, judge_of(row)[0])


def games_of_battles(battles: list[Battle]) -> tuple[list[Archived], Dropped]:
    """Convert battles to games; also returns the rows replaced by a later evaluation.

    A question has at most two games. If its rows make more, each block of adjacent rows counts as one evaluation and
    the last one is used. The file does not say which model was shown first; the tool's order is assumed, which affects
    only the figure on position bias.
    """
    runs: dict[tuple[str, str, str, str], list[list[tuple[int, str]]]] = {}
    last = None
    for line, winner, key in battles:
        if key != last:
            runs.setdefault(key, []).append([])
        runs[key][-1].append((line, winner))
        last = key
    everywhere = set.intersection(*({model_a, model_b} for _, _, (_, model_a, model_b, _) in battles))
    games, replaced = [], []
    for (question, model_a, model_b, judge), evaluations in runs.items():
        rows = [entry for evaluation in evaluations for entry in evaluation]
        if len(games_in([winner for _, winner in rows])) > 2 and len(evaluations) > 1:
            replaced += [(line, AGAIN) for line, _ in rows[: -len(evaluations[-1])]]
            rows = evaluations[-1]
        baseline = model_b if everywhere == {model_b} else model_a
        for number, (winner, weight) in enumerate(games_in([winner for _, winner in rows])):
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
            games.append(Archived(item, rows[0][0]))
    return games, replaced


def read_rows(form: str, rows: Iterable[tuple[int, Row]]) -> tuple[list[Archived], Dropped]:
    """Read all rows of a file in the format `form`; also returns the rows that could not be read."""
    verdicts: list[Archived] = []
    battles: list[Battle] = []
    dropped: Dropped = []
    for line, row in rows:
        try:
            if form == "arena_hard_battles" and "winner" in row:
                battles.append(battle(line, row))
            else:
                verdicts += FORMATS[form](line, row)
        except KeyError as error:
            dropped.append((line, f"no {error.args[0]}"))
        except (ValueError, TypeError, AttributeError) as error:
            dropped.append((line, f"not in this format: {error}".partition("\n")[0]))
    games, replaced = games_of_battles(battles) if battles else ([], [])
    return verdicts + games, dropped + replaced
