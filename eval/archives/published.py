"""Command `published`: write verdicts of a simulated, retired judge in FastChat's format.

It compares the answers of two authors to the mini world's MT-Bench questions, in both orders. The grid imports the file
like any other tool's and calibrates its own judge against it; the faults of both judges are known.
"""

import argparse
import random
from typing import Any

from eval.benchmarks import Question, find
from eval.benchmarks.loading import read_questions
from eval.judging.gold_judge import judge
from eval.judging.prompts import pair_messages
from eval.protocols.templates import load_templates
from eval.protocols.verdicts import pair_label
from salsa.config.judge import Judge
from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import read_jsonl, write_jsonl
from salsa.runtime.outputs import output_file
from salsa.runtime.provenance import Run
from salsa.runtime.seeds import derive_seed
from salsa.runtime.settings import load_settings
from salsa.world.samples import DEMONSTRATOR, answer

AUTHORS = ("author-1", "author-2")
GAMES = {"g1": ("model_1", "model_2"), "g2": ("model_2", "model_1")}
BENCHMARK, TEMPLATES = find("mt_bench"), load_templates(None)


def answers(question: Question, author: str, seed: int) -> list[str]:
    """An author's answers to all turns of a question."""
    rng = random.Random(derive_seed(seed, "published", author, question.question_id))
    return [answer(rng, list(question.turns[:turn]), DEMONSTRATOR) for turn in range(1, len(question.turns) + 1)]


def pair_row(question: Question, turn: int, texts: dict[str, list[str]], settings: Judge) -> dict[str, Any]:
    """A row of FastChat's JUDGE_pair.jsonl; `texts` holds the answers of model_1 and model_2."""
    template = BENCHMARK.pair_template(question, turn)
    row: dict[str, Any] = {"question_id": int(question.question_id), "model_1": AUTHORS[0], "model_2": AUTHORS[1]}
    row |= {"judge": [settings.model, template], "turn": turn}
    for game, shown in GAMES.items():
        first, second = (texts[model][:turn] for model in shown)
        messages = pair_messages(BENCHMARK, TEMPLATES, question, turn, first, second)
        reply = judge("\n\n".join(message["content"] for message in messages), settings)
        assert reply is not None, "our own templates are judge prompts"
        label = pair_label(reply)
        row[f"{game}_winner"] = shown["AB".index(label)] if label in ("A", "B") else "tie"
        # FastChat's files have no system prompt.
        row |= {f"{game}_user_prompt": messages[-1]["content"], f"{game}_judgment": reply}
    return row


def run(arguments: argparse.Namespace) -> None:
    settings = load_settings(arguments.settings, Judge)
    if settings.kind != "gold":
        raise UserError("--settings: this command needs a judge of kind gold")
    questions = read_questions(BENCHMARK, read_jsonl(arguments.questions), {}, str(arguments.questions))
    rows = []
    for question in questions:
        texts = dict(zip(GAMES["g1"], (answers(question, author, arguments.seed) for author in AUTHORS), strict=True))
        rows += [pair_row(question, turn, texts, settings) for turn in range(1, len(question.turns) + 1)]
    about = {"judge": settings.asked(), "templates": TEMPLATES.sha256}
    record = Run("published", about, {"questions": arguments.questions}, {"seed": arguments.seed})
    with output_file(arguments.out, record) as path:
        write_jsonl(path, rows)
