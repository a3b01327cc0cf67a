"""Arena-Hard v0.1: five labels, each game counts by itself, a strong verdict three times."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from eval.benchmarks.base import POINTS, Benchmark, Question, Row, Texts
from eval.benchmarks.question_files import text

STRONG_WEIGHT = 3
BASELINE = "gpt-4-0314"  # v0.1's


class ArenaHard(Benchmark):
    grammar: ClassVar[str] = "arena_hard"
    by_game: ClassVar[bool] = True
    unnamed_template: ClassVar[str | None] = "arena-hard"
    again: ClassVar[str | None] = "arena-hard-again"

    def question(self, row: Row, references: Mapping[str, Texts]) -> Question:
        """Either of the two published schemas: question_id with turns, or uid with prompt."""
        if "turns" in row:
            if not isinstance(row["turns"], list) or len(row["turns"]) != 1:
                raise ValueError("turns: a list of one {content: text} is expected")
            return Question(text(row, "question_id"), text(row, "cluster"), (text(row["turns"][0], "content"),))
        return Question(text(row, "uid"), text(row, "cluster"), (text(row, "prompt"),))

    def pair_template(self, question: Question, turn: int) -> str:
        return "arena-hard"

    def points(self, games: Sequence[Row]) -> tuple[float, float]:
        weights = [STRONG_WEIGHT if game["strong"] else 1 for game in games]
        earned = [weight * POINTS[game["outcome"]] for weight, game in zip(weights, games, strict=True)]
        return sum(earned), sum(weights)


BENCHMARK = ArenaHard()
