"""Aggregate a ledger into tables by model: single grades, pairs, and Arena-Hard's games against a baseline.

Only the index and the judges' replies are used; replies are parsed each time. Rows are sorted by name, because stages
fill a ledger in any order. Judges and benchmarks are separate. docs/formats.md explains the columns.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from eval.benchmarks import Benchmark, of_protocol
from eval.benchmarks.base import POINTS
from eval.grid.aggregate import first_place
from eval.ledger.calls import Entry
from eval.ledger.index import SINGLE, IndexEntry
from eval.protocols.verdicts import Value, read, verdict
from eval.statistics.bradley_terry import Score, scores
from eval.statistics.intervals import mean, win_rate
from eval.statistics.length_control import difficulty, length_controlled
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
    """An index entry with its verdict: a rating, or a label about the positions shown; None without a verdict."""

    item: IndexEntry
    value: Value


def judged(items: Iterable[IndexEntry], calls: Mapping[str, Entry], where: str) -> list[Judged]:
    """Read the verdict of each index entry; a UserError if its call is missing from the ledger."""
    return [Judged(item, stored_value(item, calls, where)) for item in items]


def stored_value(item: IndexEntry, calls: Mapping[str, Entry], where: str) -> Value:
    """The verdict of an index entry: its label, or read from its call's reply."""
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


def single_frame(verdicts: list[Judged]) -> pd.DataFrame:
    """One row per graded answer, with its rating or NaN."""
    rows = [
        {
            **{"judge": entry.item.judge, "benchmark": entry.item.benchmark, "model": entry.item.models[0]},
            **{"question_id": entry.item.question_id, "turn": entry.item.turn, "category": entry.item.category},
            "rating": entry.value,
        }
        for entry in verdicts
        if entry.item.protocol == SINGLE
    ]
    return pd.DataFrame(rows).astype({"rating": float}) if rows else pd.DataFrame()


def match_frame(verdicts: list[Judged]) -> pd.DataFrame:
    """One row per match of two models; a is the one that was shown first in the first stored game.

    `points` and `weight` follow the protocol's rule, `game_points` and `game_weight` count each game separately; all
    are 0 without verdicts. `games` holds {order, outcome, strong} in terms of a and b. `difficulty` of a question comes
    from other models' matches against b.
    """
    matches: dict[tuple[Any, ...], list[Judged]] = {}
    sides: dict[tuple[Any, ...], tuple[str, ...]] = {}
    for entry in verdicts:
        item = entry.item
        if item.protocol != SINGLE:
            cell = (item.protocol, item.judge, item.benchmark, frozenset(item.models))
            models = sides.setdefault(cell, against_baseline(item))
            matches.setdefault((*cell[:3], models, item.question_id, item.turn), []).append(entry)
    rows = []
    for (protocol, judge, benchmark, (a, b), question, turn), games in matches.items():
        played = [game(entry, a) for entry in games]
        rows.append(
            {
                **{"protocol": protocol, "judge": judge, "benchmark": benchmark, "question_id": question, "turn": turn},
                **{"a": a, "b": b, "category": games[0].item.category, "games": played},
                "lengths": lengths(games, a),
                **match_points(of_protocol(protocol), played),
                **({"consistent": None} if games[0].item.identical else {}),
            }
        )
    frame = pd.DataFrame(rows)
    if rows:
        pools = frame[frame["weight"] > 0].groupby(["protocol", "judge", "benchmark", "b"], sort=False)
        frame["difficulty"] = pd.concat([difficulty(pool, "a") for _, pool in pools] or [pd.Series(dtype=float)])
    return frame


def lengths(games: list[Judged], a: str) -> tuple[int, int] | None:
    """Characters of a's and b's answers; None if the index does not say."""
    for entry in games:
        if entry.item.lengths is not None:
            first, second = entry.item.lengths
            return (first, second) if entry.item.models[0] == a else (second, first)
    return None


def against_baseline(item: IndexEntry) -> tuple[str, ...]:
    """The two models, the baseline last."""
    return item.models[::-1] if item.baseline == item.models[0] else item.models


def game(entry: Judged, a: str) -> Row:
    """A game {order, outcome, strong} in terms of a and b."""
    order = "ab" if entry.item.models[0] == a else "ba"
    if entry.value is None:
        return {"order": order, "outcome": None, "strong": False}
    result = verdict(str(entry.value))
    outcome = "tie" if result.side == "tie" else order["AB".index(result.side)]
    return {"order": order, "outcome": outcome, "strong": result.strong}


def match_points(benchmark: Benchmark, games: list[Row]) -> Row:
    """Points of a by the protocol's rule and game by game, and the number of games with a verdict."""
    decided = [game for game in games if game["outcome"] is not None]
    both_orders = {game["order"] for game in decided} == {"ab", "ba"}
    points, weight = benchmark.points(decided) if decided and (both_orders or benchmark.by_game) else (0.0, 0)
    by_game = sum(POINTS[game["outcome"]] for game in decided)
    return {
        **{"points": points, "weight": weight, "verdicts": len(decided), "asked": max(2, len(games))},
        **{"game_points": by_game if both_orders else 0.0, "game_weight": len(decided) if both_orders else 0},
        "consistent": decided[0]["outcome"] == decided[1]["outcome"] if both_orders else None,
    }


def single_table(frame: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Mean ratings of each model by turn and category, and over all turns and categories."""
    rows = []
    if len(frame):
        # Only the columns needed: thousands of cells are copied.
        needed = frame[["judge", "benchmark", "model", "turn", "category", "question_id", "rating"]]
        for (judge, benchmark, model), part in needed.groupby(["judge", "benchmark", "model"]):
            for turn in (ALL, *sorted(part["turn"].unique())):
                of_turn = part if turn == ALL else part[part["turn"] == turn]
                for category in (ALL, *of_turn["category"].dropna().unique()):
                    cell = of_turn if category == ALL else of_turn[of_turn["category"] == category]
                    rated = cell[cell["rating"].notna()]
                    interval = mean(rated["rating"], rated, confidence, pooled=True)
                    figures = (len(rated), *interval[:3], len(rated) / len(cell))
                    turn_number = turn if turn == ALL else int(turn)
                    rows.append((judge, benchmark, model, turn_number, category, *figures))
    return pd.DataFrame(rows, columns=SINGLE_COLUMNS)


def pair_table(frame: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Wins, losses and ties of each pair of models, and its adjusted and game-by-game win rates."""
    rows = []
    for (judge, benchmark, a, b), part in cells(frame, "mt_bench_pair"):
        covered = part[part["weight"] > 0]
        by_game = covered.assign(points=covered["game_points"], weight=covered["game_weight"])
        rates = (*win_rate(covered, confidence)[:3], *win_rate(by_game[by_game["weight"] > 0], confidence)[:3])
        counts = [int((covered["points"] == points).sum()) for points in (1.0, 0.0, 0.5)]
        place = first_place(game for games in covered["games"] for game in games)
        controlled = length_controlled(covered, confidence)
        figures = (*rates, *controlled, consistency(covered), place, len(covered) / len(part))
        rows.append((judge, benchmark, a, b, len(covered), *counts, *figures))
    return pd.DataFrame(rows, columns=PAIR_COLUMNS)


def cells(frame: pd.DataFrame, protocol: str) -> Iterator[tuple[tuple[str, str, str, str], pd.DataFrame]]:
    """Yield the matches of each judge, benchmark and pair of models."""
    if len(frame):
        of_protocol = frame[frame["protocol"] == protocol]
        yield from of_protocol.groupby(["judge", "benchmark", "a", "b"])


def bradley_terry(frame: pd.DataFrame, confidence: float) -> dict[tuple[str, str, str, str], Score]:
    """Bradley-Terry score of the first model of each (judge, benchmark, model, baseline), from all games of the judge
    on the benchmark."""
    results: dict[tuple[str, str, str, str], Score] = {}
    if len(frame):
        covered = frame[(frame["protocol"] == "arena_hard") & (frame["weight"] > 0)]
        for (judge, benchmark), part in covered.groupby(["judge", "benchmark"], sort=False):
            sums = part.groupby(["question_id", "a", "b"], sort=False)[["points", "weight"]].sum().reset_index()
            pairs = dict.fromkeys(zip(sums["a"], sums["b"], strict=True))
            results |= {(judge, benchmark, *pair): score for pair, score in scores(sums, pairs, confidence).items()}
    return results


def consistency(matches: pd.DataFrame) -> float:
    """Share of matches whose two verdicts agree, without matches of equal answers."""
    return float(matches["consistent"].dropna().astype(float).mean())


def arena_table(frame: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Weighted win rates against the baseline, and Bradley-Terry scores over all models of a judge."""
    rows = []
    strengths = bradley_terry(frame, confidence)
    for (judge, benchmark, a, b), part in cells(frame, "arena_hard"):
        covered = part[part["weight"] > 0]
        rate = win_rate(covered, confidence)
        controlled = length_controlled(covered, confidence)
        score = strengths.get((judge, benchmark, a, b), NO_SCORE)
        coverage = float(part["verdicts"].sum() / part["asked"].sum())
        rows.append((judge, benchmark, a, b, rate.n, *rate[:3], *score, *controlled, consistency(part), coverage))
    return pd.DataFrame(rows, columns=ARENA_COLUMNS)
