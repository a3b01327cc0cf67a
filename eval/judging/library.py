"""Compare two lists of answers with a judge, in a notebook.

    from eval.judging.library import compare

    result = compare(questions, answers_a, answers_b, {"kind": "endpoint", "model": "my-judge", "base_url": URL})
    print(result)       # 0.62 [0.54, 0.70] over 80 questions

The judge sees each pair in both orders; equal answers are ties without a call. Calls are stored in a ledger, so that
running the same cell again costs nothing.
"""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from eval.benchmarks import Question, find
from eval.judging.client import judge_id
from eval.judging.judge import Row, index_entries, judge_matches, matches
from eval.ledger.index import add_to_index
from eval.protocols.templates import load_templates
from eval.statistics.intervals import Interval, win_rate
from salsa.config.judge import Judge
from salsa.runtime.errors import UserError
from salsa.runtime.settings import describe

Texts = str | Sequence[str]


@dataclass(frozen=True)
class Comparison:
    """The adjusted win rate of `a` (a win is 1, a tie 1/2), and a row for each question and turn.

    The interval is over questions: it describes other questions of this kind, not other training runs.
    """

    win_rate: Interval
    judgments: list[Row]
    calls: int

    def table(self) -> pd.DataFrame:
        """The judgments as a data frame."""
        return pd.DataFrame(self.judgments)

    def __str__(self) -> str:
        rate = self.win_rate
        return f"{rate.estimate:.3f} [{rate.low:.3f}, {rate.high:.3f}] over {rate.n} questions"


def turns(text: Texts) -> tuple[str, ...]:
    """A text or a list of turns as turns."""
    return (text,) if isinstance(text, str) else tuple(text)


def compare(
    questions: Sequence[Texts],
    answers_a: Sequence[Texts],
    answers_b: Sequence[Texts],
    judge: Judge | Mapping[str, Any],
    *,
    protocol: str = "mt_bench",
    references: Sequence[Texts | None] | None = None,
    judge_prompts: str | None = None,
    names: tuple[str, str] = ("a", "b"),
    ledger: str | Path = "ledger",
    confidence: float = 0.95,
) -> Comparison:
    """Compare two lists of answers to the same questions with any judge.

    Args:
        questions: One text per question, or a list of turns.
        answers_a: Answers in the order of the questions, one text or one per turn.
        answers_b: The other side's answers.
        judge: The config's `judge` section: an OpenAI-compatible endpoint (docs/howto-judge.md). The key is read from
            the environment variable that `api_key_env` names.
        protocol: Whose prompts and verdicts to use: a benchmark's kind (mt_bench, arena_hard, ultrafeedback), or your
            own .py file (docs/howto-benchmark.md).
        references: Reference answers for the judge, or None.
        judge_prompts: FastChat's judge_prompts.jsonl; default: this project's templates.
        names: What the rows call the two sides.
        ledger: Folder that stores the calls. Calls that it holds are not made again, and `salsa judge table --ledger`
            makes tables of it.
        confidence: Level of the interval.

    Returns:
        The adjusted win rate of `answers_a` with its interval over questions, and all judgments.

    Raises:
        UserError: Lists of different lengths, an unusable judge, or too many failed calls; the text says what to do.
    """
    sides = {names[0]: answers_a, names[1]: answers_b}
    references = references or [None] * len(questions)
    lengths = {**{f"answers of {name}": len(side) for name, side in sides.items()}, "references": len(references)}
    for what, length in lengths.items():
        if length != len(questions):
            raise UserError(f"compare: {length} {what} to {len(questions)} questions: give one for each")
    try:
        settings = judge if isinstance(judge, Judge) else Judge.model_validate(judge)
    except ValidationError as error:
        raise UserError(describe(error, "judge")) from None
    benchmark = find(protocol)
    templates = load_templates(judge_prompts, benchmark.templates)
    asked = [
        Question(str(number), "", turns(question), None if reference is None else turns(reference))
        for number, (question, reference) in enumerate(zip(questions, references, strict=True), 1)
    ]
    answers = {
        name: {question.question_id: list(turns(answer)) for question, answer in zip(asked, side, strict=True)}
        for name, side in sides.items()
    }
    all_matches = matches(asked, [names], answers)

    def judged() -> tuple[list[Row], dict[str, Any]]:
        return judge_matches(settings, Path(ledger), benchmark, templates, all_matches)

    rows, calls = in_thread(judged) if loop_is_running() else judged()
    who = {"benchmark": protocol, "judge": judge_id(settings)}
    add_to_index(Path(ledger), (entry for row in rows for entry in index_entries(benchmark, "answers", row, who)))
    frame = pd.DataFrame(rows)
    return Comparison(win_rate(frame[frame["weight"] > 0], confidence), rows, calls["calls"])


def loop_is_running() -> bool:
    """Whether this thread runs an event loop, as notebooks do."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def in_thread(function: Any) -> Any:
    """Call a function in another thread, which can have an event loop of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()
