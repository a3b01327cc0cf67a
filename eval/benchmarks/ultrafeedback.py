"""UltraFeedback's held-out prompts, judged like MT-Bench's first turns."""

from collections.abc import Mapping

from eval.benchmarks.base import Benchmark, Question, Row, Texts
from eval.benchmarks.question_files import text


class UltraFeedback(Benchmark):
    """Single-turn questions."""

    def question(self, row: Row, references: Mapping[str, Texts]) -> Question:
        return Question(text(row, "prompt_id"), "ultrafeedback", (text(row, "prompt"),))


BENCHMARK = UltraFeedback()
