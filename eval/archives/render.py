"""Command `render`: print the judge prompts that the stages would use, to compare them with another tool's.

Prints one JSON line per call: {question_id, turn, game, template, messages}. Game 1 shows --answers first, game 2
--answers-b. Answers may be FastChat's (choices[0].turns), Arena-Hard's (messages), or this project's.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

from eval.benchmarks import Benchmark, Question, Row, of_protocol
from eval.benchmarks.loading import load_references, read_questions
from eval.judging.answers import load_any_answers
from eval.judging.prompts import pair_messages, single_messages
from eval.ledger.index import SINGLE
from eval.protocols.templates import Templates, load_templates
from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import read_jsonl
from salsa.runtime.log import log


def calls(
    benchmark: Benchmark, templates: Templates, question: Question, sides: list[list[str]]
) -> Iterator[tuple[int, int, str, Any]]:
    """Yield turn, game, template and messages of each call for a question."""
    for turn in range(1, min(len(question.turns), *map(len, sides)) + 1):
        if len(sides) == 1:
            name = benchmark.single_template(question, turn)
            yield turn, 1, name, single_messages(benchmark, templates, question, turn, sides[0])
            continue
        for game, (first, second) in enumerate((sides, sides[::-1]), 1):
            name = benchmark.pair_template(question, turn)
            yield turn, game, name, pair_messages(benchmark, templates, question, turn, first, second)


def run(arguments: argparse.Namespace) -> None:
    if (arguments.protocol == SINGLE) == (arguments.answers_b is not None):
        fix = "it grades single answers: leave out" if arguments.answers_b else "it compares two sides: give"
        raise UserError(f"--protocol {arguments.protocol}: {fix} --answers-b")
    benchmark = of_protocol(arguments.protocol)
    templates = load_templates(arguments.templates, benchmark.templates)
    references = load_references(arguments.references) if arguments.references else {}
    rows: list[Row] = read_jsonl(arguments.questions)
    questions = read_questions(benchmark, rows, references, str(arguments.questions))
    files = [path for path in (arguments.answers, arguments.answers_b) if path is not None]
    answers = [load_any_answers(path) for path in files]
    left_out = 0
    for row, question in zip(rows, questions, strict=True):
        if not all(question.question_id in side for side in answers):
            left_out += 1
            continue
        # The id as in the file (a number in FastChat's), so that lines can be joined with it.
        name = row["question_id"] if "question_id" in row else row["uid"]
        for turn, game, template, messages in calls(
            benchmark, templates, question, [side[question.question_id] for side in answers]
        ):
            line = {"question_id": name, "turn": turn, "game": game, "template": template, "messages": messages}
            sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
    if left_out:
        log.warning("left out %d of %d questions without an answer", left_out, len(questions))
