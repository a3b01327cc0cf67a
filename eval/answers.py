"""Stored answers matched with their benchmark's questions."""

from pathlib import Path

from eval.benchmarks import Question
from salsa.errors import UserError
from salsa.stage import read_jsonl


def load_answers(path: Path, questions: list[Question]) -> dict[str, list[str]]:
    """Each question's answers, a turn each; fewer where a turn was too long to be asked."""
    rows = {}
    for number, row in enumerate(read_jsonl(path), 1):
        try:
            rows[row["question_id"]] = [(turn["user"], turn["assistant"]) for turn in row["turns"]]
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}:{number}: no {error}: make it again with python -m eval generate") from None
    answers = {}
    for question in questions:
        turns = rows.get(question.question_id)
        if turns is None or [user for user, _ in turns] != list(question.turns[: len(turns)]):
            raise UserError(
                f"{path}: question {question.question_id} is not answered there as the benchmark asks it: "
                "make the answers again with python -m eval generate"
            )
        answers[question.question_id] = [assistant for _, assistant in turns]
    return answers
