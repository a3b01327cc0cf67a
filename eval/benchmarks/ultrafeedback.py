"""UltraFeedback's held-out prompts, judged as MT-Bench's first turns are."""

from collections.abc import Mapping

from eval.benchmarks.base import Benchmark, Question, Row, Texts
from eval.benchmarks.question_files import text


class UltraFeedback(Benchmark):
    def question(self, row: Row, references: Mapping[str, Texts]) -> Question:
        return Question(text(row, "prompt_id"), "ultrafeedback", (text(row, "prompt"),))


BENCHMARK = UltraFeedback()
