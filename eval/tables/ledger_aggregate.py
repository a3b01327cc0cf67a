"""Tables by model of all that a ledger holds: single answers, pairs, and Arena-Hard's games against a baseline.

They are made of the items and the judges' texts alone, which are read anew each time, and sorted by names: stages fill
a ledger in any order. Judges and benchmarks are kept apart. docs/formats.md explains the columns.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from eval.benchmarks import Benchmark, of_protocol
from eval.benchmarks.base import POINTS
from eval.ledger.calls import Entry
from eval.ledger.index import SINGLE, IndexEntry
from eval.protocols.verdicts import Value, read, verdict
from eval.statistics.bradley_terry import Score, scores
from eval.statistics.length_control import difficulty, length_controlled
from eval.tables.aggregate import Resampling, first_place
from salsa.runtime.errors import UserError

ALL = "all"
NO_SCORE = Score(*[float("nan")] * 3)
Row = dict[str, Any]
SINGLE_COLUMNS = ["judge", "benchmark", "model", "turn", "category", "n", "mean", "low", "high", "coverage"]
PAIR_COLUMNS = [
    *("judge", "benchmark", "model_a", "model_b", "n", "wins", "losses", "ties"),
    *("adjusted_win_rate", "low", "high", "games_win_rate", "games_low", "games_high"),
    *("lc_win_rate", "lc_low", "lc_high", "lc_far", "swap_consistency", "first_place", "coverage"),
]
ARENA_COLUMNS = [
    *("judge", "benchmark", "model", "baseline", "n", "win_rate", "low", "high"),
    *("bt_score", "bt_low", "bt_high", "lc_win_rate", "lc_low", "lc_high", "lc_far", "swap_consistency", "coverage"),
]


@dataclass(frozen=True)
class Judged:
    """An item and what the judge said of it: a rating, or a label about the places shown; None for neither."""

    item: IndexEntry
    said: Value


def judged(items: Iterable[IndexEntry], calls: Mapping[str, Entry], where: str) -> list[Judged]:
    """What each item's text says; a UserError if its call is not in the ledger."""
    return [Judged(item, said(item, calls, where)) for item in items]


def said(item: IndexEntry, calls: Mapping[str, Entry], where: str) -> Value:
    if item.label is not None:
        return float(item.label) if item.protocol == SINGLE else item.label
    if item.call is None:
        return None
    if item.call not in calls:
        raise UserError(
            f"{where}: the call of question {item.question_id}, {' and '.join(item.models)}, is missing: "
            "copy a ledger as a whole folder, calls.jsonl with items.jsonl"
        )
    entry = calls[item.call]
    if entry["outcome"] != "answered":
        return None
    outcome, value = read(item.protocol, entry["text"], entry.get("finish_reason"))
    return "C" if outcome == "tie" and value is None else value


def single_frame(found: list[Judged]) -> pd.DataFrame:
    """A row an answer: its rating, or NaN."""
    rows = [
        {
            **{"judge": one.item.judge, "benchmark": one.item.benchmark, "model": one.item.models[0]},
            **{"question_id": one.item.question_id, "turn": one.item.turn, "category": one.item.category},
            "rating": one.said,
        }
        for one in found
        if one.item.protocol == SINGLE
    ]
    return pd.DataFrame(rows).astype({"rating": float}) if rows else pd.DataFrame()


def match_frame(found: list[Judged]) -> pd.DataFrame:
    """A row a match of two models, a being who was shown first in the first game stored.

    `points` and `weight` are by the protocol's rule, and `game_points` and `game_weight` of each game by itself; each
    is 0 where there is no verdict. `games` holds {order, outcome, strong}, the order and the winner as a or b, and
    `difficulty` is what other models' matches against b say of the question.
    """
    matches: dict[tuple[Any, ...], list[Judged]] = {}
    sides: dict[tuple[Any, ...], tuple[str, ...]] = {}
    for one in found:
        item = one.item
        if item.protocol != SINGLE:
            cell = (item.protocol, item.judge, item.benchmark, frozenset(item.models))
            models = sides.setdefault(cell, against_baseline(item))
            matches.setdefault((*cell[:3], models, item.question_id, item.turn), []).append(one)
    rows = []
    for (protocol, judge, benchmark, (a, b), question, turn), games in matches.items():
        played = [game(one, a) for one in games]
        rows.append(
            {
                **{"protocol": protocol, "judge": judge, "benchmark": benchmark, "question_id": question, "turn": turn},
                **{"a": a, "b": b, "category": games[0].item.category, "games": played},
                "lengths": lengths(games, a),
                **earned(of_protocol(protocol), played),
                **({"consistent": None} if games[0].item.identical else {}),
            }
        )
    frame = pd.DataFrame(rows)
    if rows:
        pools = frame[frame["weight"] > 0].groupby(["protocol", "judge", "benchmark", "b"], sort=False)
        frame["difficulty"] = pd.concat([difficulty(pool, "a") for _, pool in pools] or [pd.Series(dtype=float)])
    return frame


def lengths(games: list[Judged], a: str) -> tuple[int, int] | None:
    """Of a's and b's answers; None where the items do not say."""
    for one in games:
        if one.item.lengths is not None:
            first, second = one.item.lengths
            return (first, second) if one.item.models[0] == a else (second, first)
    return None


def against_baseline(item: IndexEntry) -> tuple[str, ...]:
    """The two models, the one that is measured first."""
    return item.models[::-1] if item.baseline == item.models[0] else item.models


def game(one: Judged, a: str) -> Row:
    order = "ab" if one.item.models[0] == a else "ba"
    if one.said is None:
        return {"order": order, "outcome": None, "strong": False}
    found = verdict(str(one.said))
    outcome = "tie" if found.side == "tie" else order["AB".index(found.side)]
    return {"order": order, "outcome": outcome, "strong": found.strong}


def earned(benchmark: Benchmark, games: list[Row]) -> Row:
    """What a match earns a by the protocol's rule, and game by game; how many of its games have a verdict."""
    decided = [game for game in games if game["outcome"] is not None]
    whole = {game["order"] for game in decided} == {"ab", "ba"}
    points, weight = benchmark.points(decided) if decided and (whole or benchmark.by_game) else (0.0, 0)
    by_game = sum(POINTS[game["outcome"]] for game in decided)
    return {
        **{"points": points, "weight": weight, "verdicts": len(decided), "asked": max(2, len(games))},
        **{"game_points": by_game if whole else 0.0, "game_weight": len(decided) if whole else 0},
        "consistent": decided[0]["outcome"] == decided[1]["outcome"] if whole else None,
    }


def single_table(frame: pd.DataFrame, draw: Resampling) -> pd.DataFrame:
    """Mean ratings of each model by turn and category, and over all of either."""
    rows = []
    if len(frame):
        # Each of thousands of cells is a copy: of the columns that it needs.
        needed = frame[["judge", "benchmark", "model", "turn", "category", "question_id", "rating"]]
        for (judge, benchmark, model), part in needed.groupby(["judge", "benchmark", "model"]):
            for turn in (ALL, *sorted(part["turn"].unique())):
                of_turn = part if turn == ALL else part[part["turn"] == turn]
                for category in (ALL, *of_turn["category"].dropna().unique()):
                    cell = of_turn if category == ALL else of_turn[of_turn["category"] == category]
                    rated = cell[cell["rating"].notna()]
                    names = ("ledger", judge, benchmark, model, str(turn), category)
                    mean = draw.pooled_mean(rated["rating"], rated["question_id"], *names)
                    figures = (len(rated), mean.estimate, mean.low, mean.high, len(rated) / len(cell))
                    turn_number = turn if turn == ALL else int(turn)
                    rows.append((judge, benchmark, model, turn_number, category, *figures))
    return pd.DataFrame(rows, columns=SINGLE_COLUMNS)


def pair_table(frame: pd.DataFrame, draw: Resampling) -> pd.DataFrame:
    """Wins, losses and ties of each pair of models, and its win rate under both rules."""
    rows = []
    for (judge, benchmark, a, b), part in cells(frame, "mt_bench_pair"):
        whole = part[part["weight"] > 0]
        names = ("ledger", judge, benchmark, a, b)
        adjusted = draw.ratio(whole, *names)
        by_game = draw.ratio(whole.assign(points=whole["game_points"], weight=whole["game_weight"]), *names, "games")
        counts = [int((whole["points"] == points).sum()) for points in (1.0, 0.0, 0.5)]
        place = first_place(game for games in whole["games"] for game in games)
        controlled = length_controlled(whole, draw.confidence)
        figures = (*adjusted[:3], *by_game[:3], *controlled, consistency(whole), place, len(whole) / len(part))
        rows.append((judge, benchmark, a, b, len(whole), *counts, *figures))
    return pd.DataFrame(rows, columns=PAIR_COLUMNS)


def cells(frame: pd.DataFrame, protocol: str) -> Iterator[tuple[tuple[str, str, str, str], pd.DataFrame]]:
    """The matches of each judge, benchmark and pair of models."""
    if len(frame):
        of_protocol = frame[frame["protocol"] == protocol]
        yield from of_protocol.groupby(["judge", "benchmark", "a", "b"])


def bradley_terry(frame: pd.DataFrame, confidence: float) -> dict[tuple[str, str, str, str], Score]:
    """The score of each judge's, benchmark's and pair's first model, from all games that share judge and benchmark."""
    found: dict[tuple[str, str, str, str], Score] = {}
    if len(frame):
        counted = frame[(frame["protocol"] == "arena_hard") & (frame["weight"] > 0)]
        for (judge, benchmark), part in counted.groupby(["judge", "benchmark"], sort=False):
            sums = part.groupby(["question_id", "a", "b"], sort=False)[["points", "weight"]].sum().reset_index()
            pairs = dict.fromkeys(zip(sums["a"], sums["b"], strict=True))
            found |= {(judge, benchmark, *pair): score for pair, score in scores(sums, pairs, confidence).items()}
    return found


def consistency(matches: pd.DataFrame) -> float:
    """The share of the matches with both verdicts in which they agree, equal answers aside."""
    return float(matches["consistent"].dropna().astype(float).mean())


def arena_table(frame: pd.DataFrame, draw: Resampling) -> pd.DataFrame:
    """Weighted win rates against the baseline, and Bradley-Terry scores of all models that a judge has compared."""
    rows = []
    strengths = bradley_terry(frame, draw.confidence)
    for (judge, benchmark, a, b), part in cells(frame, "arena_hard"):
        counted = part[part["weight"] > 0]
        found = draw.ratio(counted, "ledger", judge, benchmark, a, b)
        controlled = length_controlled(counted, draw.confidence)
        score = strengths.get((judge, benchmark, a, b), NO_SCORE)
        coverage = float(part["verdicts"].sum() / part["asked"].sum())
        rows.append((judge, benchmark, a, b, found.n, *found[:3], *score, *controlled, consistency(part), coverage))
    return pd.DataFrame(rows, columns=ARENA_COLUMNS)
