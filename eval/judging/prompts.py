"""Build judge prompts for answers from the benchmark's templates."""

from collections.abc import Mapping, Sequence

from eval.benchmarks.base import Benchmark, Question
from eval.protocols.templates import Messages, Templates


def values(question: Question, turn: int, answers: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Values for a template, under FastChat's names: those of the first turn, or of all turns up to `turn`."""
    filled = {f"ref_answer_{n}": text for n, text in enumerate(question.reference or (), 1)}
    if turn == 1:
        return filled | {"question": question.turns[0]} | {name: texts[0] for name, texts in answers.items()}
    filled |= {f"question_{n}": text for n, text in enumerate(question.turns[:turn], 1)}
    return filled | {f"{name}_{n}": text for name, texts in answers.items() for n, text in enumerate(texts[:turn], 1)}


def messages(
    templates: Templates, name: str, question: Question, turn: int, answers: Mapping[str, Sequence[str]]
) -> Messages:
    """Fill the template `name` for `answers` {placeholder: one text per turn}."""
    judged = [part if turn == 1 else f"{part}_{turn}" for part in answers]
    return templates.messages(name, values(question, turn, answers), judged)


def pair_messages(
    benchmark: Benchmark,
    templates: Templates,
    question: Question,
    turn: int,
    first: Sequence[str],
    second: Sequence[str],
) -> Messages:
    """Prompt to compare two policies' answers up to `turn`; `first` is shown as assistant A."""
    name = benchmark.pair_template(question, turn)
    return messages(templates, name, question, turn, {"answer_a": first, "answer_b": second})


def single_messages(
    benchmark: Benchmark, templates: Templates, question: Question, turn: int, answers: Sequence[str]
) -> Messages:
    """Prompt to grade one policy's answers up to `turn`."""
    return messages(templates, benchmark.single_template(question, turn), question, turn, {"answer": answers})
