"""Stage `generate`: policies answer the benchmarks, two turns where a question has two.

One start of the engine serves all benchmarks and, where several are asked for, all policies.

A line a question: {question_id, category, turns: [{user, assistant, tokens, ended, token_ids}], error}. `token_ids` are
the response's tokens as sampled, EOS included where it ended: text does not give them back, and KL is measured along
them. The random numbers of a question's turn follow from the seed, the benchmark, the question and the turn, not from
the policy: policies are compared under common random numbers, and equal policies answer equally.
"""

import argparse
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from eval.benchmarks import Question, load_questions, parse_benchmarks, temperature
from eval.generation.engines import Engine, context_length, eos_ids, generate_all, load_engine
from eval.generation.partial import Kept
from salsa.checkpoints.loading import load_tokenizer, render
from salsa.config.sections import BenchmarkSettings, GenerateSettings
from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import write_jsonl
from salsa.runtime.log import log
from salsa.runtime.outputs import output_file
from salsa.runtime.provenance import Run
from salsa.runtime.seeds import derive_seed
from salsa.runtime.settings import load_settings

PROMPT_TOO_LONG = "prompt_too_long"
Row = dict[str, Any]


def dialogue(turns: list[Row], user: str) -> list[dict[str, str]]:
    """The messages that a turn answers: earlier turns with their answers, then the user's."""
    messages = []
    for turn in turns:
        messages += [{"role": "user", "content": turn["user"]}, {"role": "assistant", "content": turn["assistant"]}]
    return [*messages, {"role": "user", "content": user}]


def answer_questions(
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    questions: list[Question],
    settings: BenchmarkSettings,
    context: int,
    seed: int,
    kept: Kept | None = None,
) -> list[Row]:
    """The lines of one benchmark, in the questions' order.

    A turn whose prompt leaves no room for `max_new_tokens` in the context is not asked, and the line says so; an
    answered first turn stays in it.
    """
    rows: list[Row] = [
        {"question_id": q.question_id, "category": q.category, "turns": [], "error": None} for q in questions
    ]
    for turn in range(max((len(question.turns) for question in questions), default=0)):
        asked = [i for i, q in enumerate(questions) if turn < len(q.turns) and rows[i]["error"] is None]
        prompts = {
            i: render(tokenizer, dialogue(rows[i]["turns"], questions[i].turns[turn]), add_generation_prompt=True)
            for i in asked
        }
        for i in asked:
            if len(prompts[i]) + settings.max_new_tokens > context:
                rows[i]["error"] = PROMPT_TOO_LONG
                del prompts[i]
        answers = generate_all(
            engine,
            list(prompts.values()),
            [temperature(settings, questions[i]) for i in prompts],
            settings.max_new_tokens,
            [derive_seed(seed, questions[i].question_id, turn + 1) for i in prompts],
            kept,
        )
        for i, answer in zip(prompts, answers, strict=True):
            rows[i]["turns"].append(
                {
                    "user": questions[i].turns[turn],
                    "assistant": tokenizer.decode(
                        answer.token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
                    ).strip(),
                    "tokens": len(answer.token_ids),
                    "ended": answer.ended,
                    "token_ids": answer.token_ids,
                }
            )
    return rows


def named_folder(text: str) -> tuple[str, Path]:
    """NAME=FOLDER, from the command line."""
    name, _, folder = text.partition("=")
    if not name or not folder or "/" in name:
        raise argparse.ArgumentTypeError(f"{text}: give NAME=FOLDER, as in salsa-s1=checkpoints/salsa-s1")
    return name, Path(folder)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--policy",
        action="append",
        type=named_folder,
        required=True,
        metavar="NAME=FOLDER",
        help="checkpoint that answers; give several of one model",
    )
    parser.add_argument("--benchmark", action="append", required=True, metavar="NAME=JSON", help="give several")
    parser.add_argument("--settings", default="{}", help="the config's generate section: JSON or FILE.yaml#section")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the files POLICY/BENCHMARK.jsonl")


def run(arguments: argparse.Namespace) -> None:
    settings = load_settings(arguments.settings, GenerateSettings)
    benchmarks = parse_benchmarks(arguments.benchmark)
    names = [policy for policy, _ in arguments.policy]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"--policy {', '.join(twice)}: given more than once: each name has files of its own")
    # Questions first: a broken benchmark file should not wait for a model to load.
    questions = {name: load_questions(benchmark, arguments.seed) for name, benchmark in benchmarks.items()}
    engine, done = None, []
    for policy, folder in arguments.policy:
        tokenizer = load_tokenizer(folder)
        if engine is None:
            engine = load_engine(folder, tokenizer, settings)
        else:
            engine.swap(folder, eos_ids(folder, tokenizer))
        context = context_length(folder, settings)
        for name, benchmark in benchmarks.items():
            inputs = {"policy": folder}
            if benchmark.questions.path is not None:
                inputs["questions"] = Path(benchmark.questions.path)
            said = {"policy": policy, "benchmark": name, **settings.model_dump(), **benchmark.model_dump()}
            provenance = Run("generate", said, inputs, {"seed": arguments.seed})
            seed = derive_seed(arguments.seed, "generate", name)
            file = arguments.out / policy / f"{name}.jsonl"
            kept = Kept(file, provenance.id())
            if kept.found:
                log.info("%s: %d answers of %s are kept of a run that did not end", name, len(kept.found), policy)
            rows = answer_questions(engine, tokenizer, questions[name], benchmark, context, seed, kept)
            too_long = sum(row["error"] is not None for row in rows)
            provenance.extra = {"questions": len(rows), PROMPT_TOO_LONG: too_long}
            if too_long:
                limits = (context, benchmark.max_new_tokens)
                log.warning(
                    "%s: %d of %d questions are longer than %d tokens less %d new ones: unanswered, see their error",
                    *(name, too_long, len(rows), *limits),
                )
            with output_file(file, provenance) as path:
                write_jsonl(path, rows)
            done.append(kept)
            log.info("%s: %s answered %d questions", name, policy, len(rows) - too_long)
    # At the end: a workflow removes all files of a command that fails.
    for kept in done:
        kept.remove()
