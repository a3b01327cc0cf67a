"""Stage `score`: score a policy's answers without a judge: learned reward, KL, length, diversity, gold reward.

Output, one line per question and turn: {question_id, category, turn, reward, reward_held_out, kl_sft, kl_reference,
tokens, ended, distinct_N…, gold}. KL compares full distributions at temperature 1, summed over the tokens of the
sampled answer, in nats.
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
    """Read the answered turns of a benchmark: {question_id, category, turn, messages, token_ids, assistant, ended}."""
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
            raise UserError(f"{path}:{number}: no {error.args[0]}: rebuild it with python -m eval generate") from None
    return answers


def score_rows(
    answers: list[Row],
    reward: list[float],
    held_out: list[float] | None,
    kl_sft: list[float],
    kl_reference: list[float] | None,
    gold: bool,
    distinct_n: list[int],
) -> list[Row]:
    """The output rows of one benchmark."""
    rows = []
    for i, answer in enumerate(answers):
        users = [message["content"] for message in answer["messages"] if message["role"] == "user"]
        rows.append(
            {
                **{key: answer[key] for key in ("question_id", "category", "turn")},
                "reward": reward[i],
                **({} if held_out is None else {"reward_held_out": held_out[i]}),
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
    parser.add_argument("--sft", type=Path, required=True, help="SFT 1: KL to it is measured for all methods")
    parser.add_argument(
        "--reference",
        type=Path,
        nargs="+",
        default=[],
        help="checkpoints of the method's reference; none for an untrained method or a moving reference",
    )
    parser.add_argument("--strategy", default=strategy_json(Fixed()), help="how the reference uses them")
    parser.add_argument("--reward", type=Path, required=True, help="reward model")
    parser.add_argument(
        "--held-out-reward", type=Path, metavar="FOLDER", help="a reward model that the policy was not trained against"
    )
    parser.add_argument("--generations", type=Path, required=True, help="folder with NAME.jsonl for each benchmark")
    parser.add_argument("--benchmark", action="append", required=True, metavar="NAME", help="a benchmark; repeat")
    parser.add_argument("--gold", action="store_true", help="add the mini world's gold reward")
    parser.add_argument("--settings", default="{}", help="the config's score section: JSON or FILE.yaml#section")
    parser.add_argument("--out", type=Path, required=True, help="folder for NAME.jsonl of each benchmark")


def run(arguments: argparse.Namespace) -> None:
    settings = load_settings(arguments.settings, Score)
    strategy = parse_strategy(arguments.strategy, len(arguments.reference)) if arguments.reference else Fixed()
    folders = {key: getattr(arguments, key) for key in ("policy", "sft", "reward")}
    folders |= reference_inputs(arguments.reference)
    folders |= {"held_out_reward": arguments.held_out_reward} if arguments.held_out_reward else {}
    recorded = {**settings.model_dump(), "gold": arguments.gold, "reference": strategy_data(strategy)}
    files = {name: arguments.generations / f"{name}.jsonl" for name in arguments.benchmark}
    runs = {name: Run("score", recorded, {**folders, "generations": file}, {}) for name, file in files.items()}
    answers = {name: read_answers(file) for name, file in files.items()}
    all_answers = [answer for rows in answers.values() for answer in rows]
    tokenizer = load_tokenizer(arguments.policy)
    pad = tokenizer.pad_token_id
    prompts = [render(tokenizer, answer["messages"], add_generation_prompt=True) for answer in all_answers]
    responses = [answer["token_ids"] for answer in all_answers]

    sequences = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]

    def rewarded(folder: Path) -> list[float]:
        """Rewards of all answers. The model is freed before others are loaded."""
        return rewards(load_reward(folder, settings.dtype), sequences, pad, settings.batch_size, *normalisation(folder))

    reward = rewarded(arguments.reward)
    held_out = rewarded(arguments.held_out_reward) if arguments.held_out_reward else None

    # A checkpoint with two roles (PPO's reference is SFT 1) is loaded and measured once.
    policy, sft = arguments.policy.resolve(), arguments.sft.resolve()
    references = [path.resolve() for path in arguments.reference]
    others = list(dict.fromkeys([sft, *references]))
    loaded = {path: load_causal(path, settings.dtype) for path in dict.fromkeys([policy, *others])}
    models = [loaded[path] for path in others]
    kl = dict(
        zip(others, response_kl(loaded[policy], models, prompts, responses, pad, settings.batch_size), strict=True)
    )
    parts_of_answers = zip(*(kl[path] for path in references), strict=True)
    reference_kl = [strategy.combine(parts) for parts in parts_of_answers] if references else None

    begin = 0
    for name, benchmark_answers in answers.items():
        part = slice(begin, begin + len(benchmark_answers))
        begin += len(benchmark_answers)
        reference = reference_kl[part] if reference_kl is not None else None
        other_reward = held_out[part] if held_out is not None else None
        measured = (reward[part], other_reward, kl[sft][part], reference)
        rows = score_rows(benchmark_answers, *measured, arguments.gold, settings.distinct_n)
        with output_file(arguments.out / f"{name}.jsonl", runs[name]) as path:
            write_jsonl(path, rows)
        log.info("%s: scored %d answers", name, len(rows))
