"""Arena-Hard v0.1: five labels; each game counts separately, and a strong verdict counts three times."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from eval.benchmarks.base import POINTS, Benchmark, Question, Row, Texts
from eval.benchmarks.question_files import text

STRONG_WEIGHT = 3
BASELINE = "gpt-4-0314"  # v0.1's


class ArenaHard(Benchmark):
    """Pairwise comparison with the labels A>>B, A>B, A=B, B>A and B>>A."""

    grammar: ClassVar[str] = "arena_hard"
    by_game: ClassVar[bool] = True
    unnamed_template: ClassVar[str | None] = "arena-hard"
    again: ClassVar[str | None] = "arena-hard-again"

    def question(self, row: Row, references: Mapping[str, Texts]) -> Question:
        """Reads both published schemas: question_id with turns, or uid with prompt."""
        if "turns" in row:
            if not isinstance(row["turns"], list) or len(row["turns"]) != 1:
                raise ValueError("turns: expected a list with one {content: text}")
            return Question(text(row, "question_id"), text(row, "cluster"), (text(row["turns"][0], "content"),))
        return Question(text(row, "uid"), text(row, "cluster"), (text(row, "prompt"),))

    def pair_template(self, question: Question, turn: int) -> str:
        return "arena-hard"

    def points(self, games: Sequence[Row]) -> tuple[float, float]:
        weights = [STRONG_WEIGHT if game["strong"] else 1 for game in games]
        points = [weight * POINTS[game["outcome"]] for weight, game in zip(weights, games, strict=True)]
        return sum(points), sum(weights)


BENCHMARK = ArenaHard()
