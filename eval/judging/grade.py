"""Stage `grade`: rate each answer of a policy from 1 to 10 (MT-Bench's single-answer grading).

Output, one line per question and turn: {question_id, category, turn, policy, template, lengths, outcome, rating, flags,
call}, where `call` is the ledger key.
"""

import argparse
from collections import Counter
from typing import Any

from eval.benchmarks import Question
from eval.benchmarks.base import format_counts
from eval.judging.answers import load_answers
from eval.judging.client import JudgeSession, judge_id
from eval.judging.estimate import estimate_all
from eval.judging.judge import call_reference, missing_reason, readable, warn_of_cut
from eval.judging.prompts import single_messages
from eval.judging.rounds import ask_all
from eval.judging.task import JudgingTask
from eval.ledger.index import SINGLE, IndexEntry, add_to_index
from eval.protocols.imitation import imitates
from eval.protocols.verdicts import rating
from salsa.runtime.jsonl import write_jsonl
from salsa.runtime.log import log
from salsa.runtime.outputs import output_file
from salsa.runtime.provenance import Run

Row = dict[str, Any]


def index_entry(model: str, row: Row, who: dict[str, str]) -> IndexEntry:
    """A row as an entry of the ledger's index. `model` is MODEL/POLICY."""
    about = {key: row[key] for key in ("question_id", "category", "turn", "template")}
    lengths = {"lengths": row["lengths"]} if "lengths" in row else {}
    verdict = lengths | ({"call": row["call"]} if "call" in row else {"missing": row["outcome"]})
    return IndexEntry(protocol=SINGLE, models=(model,), source="grade", **about, **verdict, **who)


def run(arguments: argparse.Namespace) -> None:
    task = JudgingTask.from_arguments(arguments)
    name, benchmark, templates, questions = task.name, task.benchmark, task.templates, task.questions
    file = arguments.generations / arguments.policy / f"{name}.jsonl"
    record = Run("grade", task.recorded(), {"generations": file}, {"seed": arguments.seed})
    answers = load_answers(file, questions)
    turns = [(question, turn) for question in questions for turn in range(1, len(question.turns) + 1)]

    async def work(client: JudgeSession, item: tuple[Question, int]) -> Row:
        question, turn = item
        texts = answers[question.question_id]
        template = benchmark.single_template(question, turn)
        row = {
            "question_id": question.question_id,
            "category": question.category,
            "turn": turn,
            "policy": arguments.policy,
            "template": templates.full_name(template),
            "imitating": imitates(texts[:turn], "mt_bench_single", templates.named.get(template)),
        }
        if len(texts) < turn:
            return {**row, "outcome": "unanswered", "rating": None, "flags": list(question.flags)}
        entry = await client.ask(single_messages(benchmark, templates, question, turn, texts[:turn]))
        value = rating(readable(entry))
        outcome = "rated" if value is not None else missing_reason(entry)
        grade = {"outcome": outcome, "rating": value, "flags": list(question.flags), **call_reference(entry)}
        return {**row, "lengths": [len(texts[turn - 1].strip())], **grade}

    if arguments.estimate:
        print(estimate_all(task.judge, arguments.ledger, turns, work))
        return
    rows, calls = ask_all(
        task.judge, arguments.ledger, turns, work, lambda item: f"question {item[0].question_id}, turn {item[1]}"
    )
    who = {"benchmark": name, "judge": judge_id(task.judge)}
    model = f"{arguments.generations.resolve().name}/{arguments.policy}"
    add_to_index(arguments.ledger, (index_entry(model, row, who) for row in rows))
    outcomes = Counter(row["outcome"] for row in rows)
    rated = outcomes.pop("rated", 0)
    record.extra = {**calls, "grades": len(rows), "covered": rated, "without": outcomes}
    with output_file(arguments.out, record) as path:
        write_jsonl(path, rows)
    why = f" ({format_counts(outcomes)})" if outcomes else ""
    log.info("%s: %d of %d answers of %s are rated%s", name, rated, len(rows), arguments.policy, why)
    warn_of_cut(f"{name}, {arguments.policy}", outcomes, task.judge)
