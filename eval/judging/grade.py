"""Stage `grade`: one policy's answers, each rated from 1 to 10 on its own (MT-Bench's single-answer grading).

A line a question and turn: {question_id, category, turn, policy, template, lengths, outcome, rating, flags, call}; the
last is the ledger's key.
"""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from eval.benchmarks import Question, find, load_questions, parse_benchmarks
from eval.benchmarks.base import counted
from eval.judging.answers import load_answers
from eval.judging.client import Asks, judge_id
from eval.judging.estimate import estimate_all
from eval.judging.judge import call_of, readable, undecided, warn_of_cut
from eval.judging.prompts import single_messages
from eval.judging.rounds import ask_all
from eval.ledger.index import SINGLE, Item, add_items
from eval.protocols.imitation import imitates
from eval.protocols.templates import load_templates
from eval.protocols.verdicts import rating
from salsa.config.judge import Judge
from salsa.runtime.jsonl import write_jsonl
from salsa.runtime.log import log
from salsa.runtime.outputs import output_file
from salsa.runtime.provenance import Run
from salsa.runtime.settings import load_settings

Row = dict[str, Any]


def item(model: str, row: Row, who: dict[str, str]) -> Item:
    """A line as the ledger's index has it; policies of different models may share a name."""
    about = {key: row[key] for key in ("question_id", "category", "turn", "template")}
    lengths = {"lengths": row["lengths"]} if "lengths" in row else {}
    found = lengths | ({"call": row["call"]} if "call" in row else {"missing": row["outcome"]})
    return Item(protocol=SINGLE, models=(model,), source="grade", **about, **found, **who)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--generations", type=Path, required=True, help="folder with POLICY/BENCHMARK.jsonl")
    parser.add_argument("--policy", required=True)
    parser.add_argument("--benchmark", required=True, metavar="NAME=JSON", help="the benchmark's name and settings")
    parser.add_argument("--settings", required=True, help="the config's judge section: JSON or FILE.yaml#judge")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--ledger", type=Path, required=True, help="folder that calls are kept in, shared by all")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", type=Path)
    target.add_argument("--estimate", action="store_true", help="print calls, tokens and cost, and ask nothing")


def run(arguments: argparse.Namespace) -> None:
    settings = load_settings(arguments.settings, Judge)
    [(name, chosen)] = parse_benchmarks([arguments.benchmark]).items()
    questions = load_questions(chosen, arguments.seed)
    benchmark = find(chosen.kind)
    templates = load_templates(chosen.judge_prompts, benchmark.templates)
    file = arguments.generations / arguments.policy / f"{name}.jsonl"
    said = {"judge": settings.asked(), "benchmark": {"name": name, **chosen.model_dump()}}
    record = Run("grade", {**said, "templates": templates.sha256}, {"generations": file}, {"seed": arguments.seed})
    answers = load_answers(file, questions)
    turns = [(question, turn) for question in questions for turn in range(1, len(question.turns) + 1)]

    async def work(client: Asks, asked: tuple[Question, int]) -> Row:
        question, turn = asked
        given = answers[question.question_id]
        template = benchmark.single_template(question, turn)
        row = {
            "question_id": question.question_id,
            "category": question.category,
            "turn": turn,
            "policy": arguments.policy,
            "template": templates.named_in_full(template),
            "imitating": imitates(given[:turn], "mt_bench_single", templates.named.get(template)),
        }
        if len(given) < turn:
            return {**row, "outcome": "unanswered", "rating": None, "flags": list(question.flags)}
        entry = await client.ask(single_messages(benchmark, templates, question, turn, given[:turn]))
        found = rating(readable(entry))
        outcome = "rated" if found is not None else undecided(entry)
        said = {"outcome": outcome, "rating": found, "flags": list(question.flags), **call_of(entry)}
        return {**row, "lengths": [len(given[turn - 1].strip())], **said}

    if arguments.estimate:
        print(estimate_all(settings, arguments.ledger, turns, work))
        return
    rows, calls = ask_all(
        settings, arguments.ledger, turns, work, lambda asked: f"question {asked[0].question_id}, turn {asked[1]}"
    )
    who = {"benchmark": name, "judge": judge_id(settings)}
    model = f"{arguments.generations.resolve().name}/{arguments.policy}"
    add_items(arguments.ledger, (item(model, row, who) for row in rows))
    outcomes = Counter(row["outcome"] for row in rows)
    rated = outcomes.pop("rated", 0)
    record.extra = {**calls, "grades": len(rows), "covered": rated, "without": outcomes}
    with output_file(arguments.out, record) as path:
        write_jsonl(path, rows)
    why = f" ({counted(outcomes)})" if outcomes else ""
    log.info("%s: %d of %d answers of %s are rated%s", name, rated, len(rows), arguments.policy, why)
    warn_of_cut(f"{name}, {arguments.policy}", outcomes, settings)
