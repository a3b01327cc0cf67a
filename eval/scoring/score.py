"""Stage `score`: a policy's answers in figures: learned reward, KL to SFT 1 and to the reference, length, gold reward.

A line a question and turn: {question_id, category, turn, reward, kl_sft, kl_reference, tokens, ended, distinct_N…,
gold}. KL is of the policy's whole distribution at temperature 1, summed along the sampled answer's tokens, in nats.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.generation.generate import dialogue
from eval.scoring.kl import response_kl
from salsa.checkpoints.loading import load_causal, load_reward, load_tokenizer, render
from salsa.config.policy_arguments import reference_inputs
from salsa.config.references import Fixed, parse_strategy, strategy_data, strategy_json
from salsa.config.sections import Score
from salsa.models.scoring import normalisation, rewards
from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import read_jsonl, write_jsonl
from salsa.runtime.log import log
from salsa.runtime.outputs import output_file
from salsa.runtime.provenance import Run
from salsa.runtime.settings import load_settings
from salsa.world.gold import gold_reward

Row = dict[str, Any]


def distinct(tokens: Sequence[int], n: int) -> float | None:
    """Share of a response's n-grams that are distinct (Li et al. 2016, per response); None if it is shorter than n."""
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None


def read_answers(path: Path) -> list[Row]:
    """A benchmark's answered turns: {question_id, category, turn, messages, token_ids, assistant, ended}."""
    answers = []
    for number, row in enumerate(read_jsonl(path), 1):
        try:
            for turn, answer in enumerate(row["turns"]):
                answers.append(
                    {
                        **{key: row[key] for key in ("question_id", "category")},
                        "turn": turn + 1,
                        "messages": dialogue(row["turns"][:turn], answer["user"]),
                        **{key: answer[key] for key in ("token_ids", "assistant", "ended")},
                    }
                )
        except KeyError as error:
            raise UserError(
                f"{path}:{number}: no {error.args[0]}: make it again with python -m eval generate"
            ) from None
    return answers


def score_rows(
    answers: list[Row],
    reward: list[float],
    kl_sft: list[float],
    kl_reference: list[float] | None,
    gold: bool,
    distinct_n: list[int],
) -> list[Row]:
    """The lines of one benchmark."""
    rows = []
    for i, answer in enumerate(answers):
        users = [message["content"] for message in answer["messages"] if message["role"] == "user"]
        rows.append(
            {
                **{key: answer[key] for key in ("question_id", "category", "turn")},
                "reward": reward[i],
                "kl_sft": kl_sft[i],
                "kl_reference": None if kl_reference is None else kl_reference[i],
                "tokens": len(answer["token_ids"]),
                "ended": answer["ended"],
                **{f"distinct_{n}": distinct(answer["token_ids"], n) for n in distinct_n},
                "gold": gold_reward(users, answer["assistant"], answer["ended"]) if gold else None,
            }
        )
    return rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--policy", type=Path, required=True, help="checkpoint that gave the answers")
    parser.add_argument("--sft", type=Path, required=True, help="SFT 1: the KL to it is common to all methods")
    parser.add_argument(
        "--reference",
        type=Path,
        nargs="+",
        default=[],
        help="the method's own reference, or what it is made of; none for an untrained method or a moving reference",
    )
    parser.add_argument("--strategy", default=strategy_json(Fixed()), help="how the reference is made of them")
    parser.add_argument("--reward", type=Path, required=True, help="reward model")
    parser.add_argument("--generations", type=Path, required=True, help="folder with NAME.jsonl of each benchmark")
    parser.add_argument("--benchmark", action="append", required=True, metavar="NAME", help="give several")
    parser.add_argument("--gold", action="store_true", help="add the mini world's gold reward")
    parser.add_argument("--settings", default="{}", help="the config's score section: JSON or FILE.yaml#section")
    parser.add_argument("--out", type=Path, required=True, help="folder; each benchmark is a file NAME.jsonl there")


def run(arguments: argparse.Namespace) -> None:
    settings = load_settings(arguments.settings, Score)
    strategy = parse_strategy(arguments.strategy, len(arguments.reference)) if arguments.reference else Fixed()
    folders = {key: getattr(arguments, key) for key in ("policy", "sft", "reward")}
    folders |= reference_inputs(arguments.reference)
    given = {**settings.model_dump(), "gold": arguments.gold, "reference": strategy_data(strategy)}
    files = {name: arguments.generations / f"{name}.jsonl" for name in arguments.benchmark}
    runs = {name: Run("score", given, {**folders, "generations": file}, {}) for name, file in files.items()}
    answers = {name: read_answers(file) for name, file in files.items()}
    every = [answer for found in answers.values() for answer in found]
    tokenizer = load_tokenizer(arguments.policy)
    pad = tokenizer.pad_token_id
    prompts = [render(tokenizer, answer["messages"], add_generation_prompt=True) for answer in every]
    responses = [answer["token_ids"] for answer in every]

    # One after the other, so that the reward model's memory is free when the policy and its references come.
    model = load_reward(arguments.reward, settings.dtype)
    sequences = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]
    reward = rewards(model, sequences, pad, settings.batch_size, *normalisation(arguments.reward))
    del model

    # A folder that stands for two of them (PPO's reference is SFT 1) is loaded and measured once.
    policy, sft = arguments.policy.resolve(), arguments.sft.resolve()
    made_of = [path.resolve() for path in arguments.reference]
    others = list(dict.fromkeys([sft, *made_of]))
    loaded = {path: load_causal(path, settings.dtype) for path in dict.fromkeys([policy, *others])}
    found = response_kl(loaded[policy], [loaded[path] for path in others], prompts, responses, pad, settings.batch_size)
    kl = dict(zip(others, found, strict=True))
    each = zip(*(kl[path] for path in made_of), strict=True)
    to_reference = [strategy.combine(parts) for parts in each] if made_of else None

    begin = 0
    for name, rows_of in answers.items():
        part = slice(begin, begin + len(rows_of))
        begin += len(rows_of)
        reference = to_reference[part] if to_reference is not None else None
        rows = score_rows(rows_of, reward[part], kl[sft][part], reference, arguments.gold, settings.distinct_n)
        with output_file(arguments.out / f"{name}.jsonl", runs[name]) as path:
            write_jsonl(path, rows)
        log.info("%s: scored %d answers", name, len(rows))
