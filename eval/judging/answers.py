"""Load stored answers and match them with their benchmark's questions; also answers of other tools."""

from pathlib import Path
from typing import Any

from eval.benchmarks import Question
from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import read_jsonl


def load_answers(path: Path, questions: list[Question]) -> dict[str, list[str]]:
    """Answers by question id, one text per turn; fewer if a turn was too long to be asked."""
    rows = {}
    for number, row in enumerate(read_jsonl(path), 1):
        try:
            rows[row["question_id"]] = [(turn["user"], turn["assistant"]) for turn in row["turns"]]
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}:{number}: no {error}: rebuild it with python -m eval generate") from None
    answers = {}
    for question in questions:
        turns = rows.get(question.question_id)
        if turns is None or [user for user, _ in turns] != list(question.turns[: len(turns)]):
            raise UserError(
                f"{path}: question {question.question_id} is missing or differs from the benchmark's: generate the "
                "answers again with python -m eval generate"
            )
        answers[question.question_id] = [assistant for _, assistant in turns]
    return answers


def answer_texts(row: dict[str, Any]) -> list[str]:
    """The assistant's texts in a row of ours, FastChat's or Arena-Hard's; an error if it is none of these."""
    if "choices" in row:
        said = row["choices"][0]["turns"]
        texts = [turn["content"] if isinstance(turn, dict) else turn for turn in said]
    elif "messages" in row:
        said = [message["content"] for message in row["messages"] if message["role"] == "assistant"]
        texts = [content["answer"] if isinstance(content, dict) else content for content in said]
    else:
        texts = [turn["assistant"] for turn in row["turns"]]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("an answer is not text")
    return texts


def load_any_answers(path: Path) -> dict[str, list[str]]:
    """Answers by question id from a file of any of these tools; the last row of a question counts."""
    answers = {}
    for number, row in enumerate(read_jsonl(path), 1):
        try:
            answers[str(row["question_id"] if "question_id" in row else row["uid"])] = answer_texts(row)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise UserError(
                f"{path}:{number}: cannot read an answer ({type(error).__name__}: {error}): a row needs question_id "
                "with choices[0].turns, or with turns of {user, assistant}"
            ) from None
    return answers
