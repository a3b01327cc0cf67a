"""Stage `generate`: policies answer the benchmarks' questions, with one or two turns.

The engine starts once for all benchmarks and policies of the command.

Output, one line per question: {question_id, category, turns: [{user, assistant, tokens, ended, token_ids}], error}.
`token_ids` are the sampled tokens (with EOS if the answer ended), because text cannot be tokenized back exactly and KL
is measured along them. Seeds depend on the config's seed, the benchmark, the question and the turn, but not on the
policy: policies are compared under common random numbers, and equal policies give equal answers.
"""

import argparse
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from eval.benchmarks import Question, load_benchmarks, load_questions, temperature
from eval.generation.engines import Engine, context_length, eos_ids, generate_all, load_engine
from eval.generation.partial import PartialAnswers
from salsa.checkpoints.loading import load_tokenizer, render
from salsa.config.sections import BenchmarkSettings, GenerateSettings
from salsa.runtime.jsonl import write_jsonl
from salsa.runtime.log import log
from salsa.runtime.outputs import output_file
from salsa.runtime.provenance import Run
from salsa.runtime.seeds import derive_seed, run_seed
from salsa.runtime.settings import load_settings

PROMPT_TOO_LONG = "prompt_too_long"
Row = dict[str, Any]


def dialogue(turns: list[Row], user: str) -> list[dict[str, str]]:
    """Messages for the next turn: earlier turns with their answers, then the user's."""
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
    partial: PartialAnswers | None = None,
) -> list[Row]:
    """Answer all questions of a benchmark; returns the output rows in question order.

    A turn whose prompt leaves no room for `max_new_tokens` in the context is skipped, and its row has an `error`; the
    row keeps an answered first turn.
    """
    rows: list[Row] = [
        {"question_id": q.question_id, "category": q.category, "turns": [], "error": None} for q in questions
    ]
    for turn in range(max((len(question.turns) for question in questions), default=0)):
        open_rows = [i for i, q in enumerate(questions) if turn < len(q.turns) and rows[i]["error"] is None]
        prompts = {
            i: render(tokenizer, dialogue(rows[i]["turns"], questions[i].turns[turn]), add_generation_prompt=True)
            for i in open_rows
        }
        for i in open_rows:
            if len(prompts[i]) + settings.max_new_tokens > context:
                rows[i]["error"] = PROMPT_TOO_LONG
                del prompts[i]
        answers = generate_all(
            engine,
            list(prompts.values()),
            [temperature(settings, questions[i]) for i in prompts],
            settings.max_new_tokens,
            [derive_seed(seed, questions[i].question_id, turn + 1) for i in prompts],
            partial,
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


def run(arguments: argparse.Namespace) -> None:
    settings = load_settings(arguments.settings, GenerateSettings)
    benchmarks = load_benchmarks(arguments.benchmarks)
    policies = arguments.policy
    # Questions first, so that a broken benchmark file is reported before a model is loaded.
    questions = {name: load_questions(benchmark, arguments.seed) for name, benchmark in benchmarks.items()}
    engine, done = None, []
    for policy, folder in policies.items():
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
            recorded = {"policy": policy, "benchmark": name, **settings.model_dump(), **benchmark.model_dump()}
            provenance = Run("generate", recorded, inputs, {"seed": arguments.seed, "run": arguments.run})
            seed = derive_seed(run_seed(arguments.seed, arguments.run), "generate", name)
            file = arguments.out / policy / f"{name}.jsonl"
            partial = PartialAnswers(file, provenance.id())
            if partial.answers:
                log.info("%s: reusing %d answers of %s from an interrupted run", name, len(partial.answers), policy)
            rows = answer_questions(engine, tokenizer, questions[name], benchmark, context, seed, partial)
            too_long = sum(row["error"] is not None for row in rows)
            provenance.extra = {"questions": len(rows), PROMPT_TOO_LONG: too_long}
            if too_long:
                limits = (context, benchmark.max_new_tokens)
                log.warning(
                    "%s: %d of %d questions are unanswered: longer than the context (%d tokens) minus %d new tokens",
                    *(name, too_long, len(rows), *limits),
                )
            with output_file(file, provenance) as path:
                write_jsonl(path, rows)
            done.append(partial)
            log.info("%s: %s answered %d questions", name, policy, len(rows) - too_long)
    # At the end, because Snakemake removes all outputs of a command that fails.
    for partial in done:
        partial.remove()
