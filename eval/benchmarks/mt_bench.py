"""MT-Bench, with the protocol of FastChat's llm_judge."""

from collections.abc import Mapping

from eval.benchmarks.base import Benchmark, Question, Row, Texts
from eval.benchmarks.question_files import text, texts

TEMPERATURES = {"writing": 0.7, "roleplay": 0.7, "stem": 0.1, "humanities": 0.1}  # others: 0
# The published questions have ids 81 to 160: ten per category, in this order.
CATEGORIES = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")
FIRST_ID, IDS_EACH = 81, 10
# Only in these categories is the judge shown a reference answer, even if the file has others.
REFERENCE_CATEGORIES = frozenset({"math", "reasoning", "coding"})
# GPT-4's reference answers that are wrong (FastChat, pull request 3158).
WRONG_REFERENCES = frozenset(
    ["104", "105", "109", "111", "113", "114", "120", "122", "124", "125", "126", "128", "130"]
)
WRONG_REFERENCE = "wrong_reference"


def published_category(question_id: str) -> str | None:
    """The category of a published question; None for other questions."""
    place = (int(question_id) - FIRST_ID) // IDS_EACH if question_id.isdecimal() else -1
    return CATEGORIES[place] if 0 <= place < len(CATEGORIES) else None


class MtBench(Benchmark):
    """Two-turn questions; reference answers in math, reasoning and coding."""

    def question(self, row: Row, references: Mapping[str, Texts]) -> Question:
        turns = texts(row, "turns")
        name = str(row["question_id"])
        published = references.get(name)
        guided = row.get("category") in REFERENCE_CATEGORIES
        reference = (published or inline_reference(row)) if guided else None
        if reference is not None and len(reference) < len(turns):
            raise ValueError(f"reference: {len(reference)} answers to {len(turns)} turns")
        flags = (WRONG_REFERENCE,) if published and name in WRONG_REFERENCES else ()
        return Question(name, text(row, "category"), turns, reference, flags)

    def temperature(self, question: Question) -> float:
        return TEMPERATURES.get(question.category, 0.0)


def inline_reference(row: Row) -> Texts | None:
    """The reference answer in the question's own row; None if a turn is empty, as in some of FastChat's."""
    value = row.get("reference")
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise ValueError("reference: expected a list of texts")
    return tuple(value) if all(part.strip() for part in value) else None


BENCHMARK = MtBench()
