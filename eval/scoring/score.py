"""Stage `score`: score the answers of policies without a judge: learned reward, KL, length, diversity, gold reward.

Output, one line per question and turn: {question_id, category, turn, reward, reward_held_out, kl_sft, kl_reference,
tokens, ended, distinct_N…, gold}. KL compares full distributions at temperature 1, summed over the tokens of the
sampled answer, in nats.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from eval.generation.generate import dialogue
from eval.scoring.kl import response_kl
from salsa.checkpoints.loading import load_causal, load_tokenizer, render
from salsa.config.arguments import reference_inputs
from salsa.config.references import Fixed, parse_strategy, strategy_data, strategy_json
from salsa.config.sections import Score
from salsa.models.scoring import Scorer
from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import read_jsonl, write_jsonl
from salsa.runtime.log import log
from salsa.runtime.outputs import output_file
from salsa.runtime.provenance import Run
from salsa.runtime.settings import load_settings
from salsa.world.gold import gold_reward

Row = dict[str, Any]
Figures = dict[str, list[float] | None]


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
    answers: Sequence[Row], figures: Mapping[str, Sequence[float] | None], gold: bool, distinct_n: Sequence[int]
) -> list[Row]:
    """The output rows of one benchmark. `figures` have a value per answer; None where the policy has no such figure."""
    rows = []
    for i, answer in enumerate(answers):
        users = [message["content"] for message in answer["messages"] if message["role"] == "user"]
        rows.append(
            {
                **{key: answer[key] for key in ("question_id", "category", "turn")},
                **{name: None if values is None else values[i] for name, values in figures.items()},
                "tokens": len(answer["token_ids"]),
                "ended": answer["ended"],
                **{f"distinct_{n}": distinct(answer["token_ids"], n) for n in distinct_n},
                "gold": gold_reward(users, answer["assistant"], answer["ended"]) if gold else None,
            }
        )
    return rows


class AnsweredPolicy:
    """A policy with its answers to all benchmarks."""

    def __init__(self, name: str, checkpoint: Path, arguments: argparse.Namespace):
        self.name, self.checkpoint = name, checkpoint
        self.references = [folder for policy, folder in arguments.reference if policy == name]
        strategy = dict(arguments.strategy).get(name, strategy_json(Fixed()))
        self.strategy = parse_strategy(strategy, len(self.references)) if self.references else Fixed()
        self.files = {each: arguments.generations / name / f"{each}.jsonl" for each in arguments.benchmark}
        self.answers = {benchmark: read_answers(file) for benchmark, file in self.files.items()}
        tokenizer = load_tokenizer(checkpoint)
        rows = [answer for of_benchmark in self.answers.values() for answer in of_benchmark]
        self.prompts = [render(tokenizer, answer["messages"], add_generation_prompt=True) for answer in rows]
        self.responses = [answer["token_ids"] for answer in rows]

    def by_benchmark(self, figures: Figures) -> Iterator[tuple[str, list[Row], Figures]]:
        """Each benchmark with its answers and their part of the figures."""
        begin = 0
        for benchmark, answers in self.answers.items():
            part = slice(begin, begin + len(answers))
            yield benchmark, answers, {name: values and values[part] for name, values in figures.items()}
            begin += len(answers)


def all_rewards(policies: Sequence[AnsweredPolicy], folder: Path, settings: Score) -> dict[str, list[float]]:
    """Rewards of all answers of each policy. The model is freed before others are loaded."""
    scorer, found = Scorer(folder, settings.dtype), {}
    for policy in policies:
        sequences = [prompt + response for prompt, response in zip(policy.prompts, policy.responses, strict=True)]
        found[policy.name] = scorer(sequences, settings.batch_size)
    return found


class Divergences:
    """KL to SFT 1 and to the references of policies. Models that consecutive policies share stay loaded."""

    def __init__(self, sft: Path, settings: Score):
        self.sft, self.settings = sft.resolve(), settings
        self.loaded: dict[Path, PreTrainedModel] = {}

    def measure(self, policy: AnsweredPolicy) -> Figures:
        """The KL of all answers of a policy, to SFT 1 and to its reference; None for the reference if it has none."""
        # A checkpoint with two roles (PPO's reference is SFT 1) is loaded and measured once.
        own, references = policy.checkpoint.resolve(), [path.resolve() for path in policy.references]
        others = list(dict.fromkeys([self.sft, *references]))
        needed = dict.fromkeys([own, *others])
        self.loaded = {path: model for path, model in self.loaded.items() if path in needed}
        self.loaded |= {path: load_causal(path, self.settings.dtype) for path in needed if path not in self.loaded}
        models = [self.loaded[path] for path in others]
        texts = (policy.prompts, policy.responses)
        kl = dict(zip(others, response_kl(self.loaded[own], models, *texts, self.settings.batch_size), strict=True))
        by_answer = zip(*(kl[path] for path in references), strict=True)
        to_reference = [policy.strategy.combine(values) for values in by_answer] if references else None
        return {"kl_sft": kl[self.sft], "kl_reference": to_reference}


def run(arguments: argparse.Namespace) -> None:
    settings = load_settings(arguments.settings, Score)
    policies = [AnsweredPolicy(name, checkpoint, arguments) for name, checkpoint in arguments.policy.items()]
    reward_models = {"reward": arguments.reward}
    reward_models |= {"held_out_reward": arguments.held_out_reward} if arguments.held_out_reward else {}
    runs = {}
    for policy in policies:
        recorded = {**settings.model_dump(), "gold": arguments.gold, "reference": strategy_data(policy.strategy)}
        inputs = {"policy": policy.checkpoint, "sft": arguments.sft, **reward_models}
        inputs |= reference_inputs(policy.references)
        for benchmark, file in policy.files.items():
            runs[policy.name, benchmark] = Run("score", recorded, {**inputs, "generations": file}, {})
    rewarded = {name: all_rewards(policies, folder, settings) for name, folder in reward_models.items()}
    divergences = Divergences(arguments.sft, settings)
    for policy in policies:
        figures: Figures = {"reward": rewarded["reward"][policy.name]}
        if arguments.held_out_reward:
            figures["reward_held_out"] = rewarded["held_out_reward"][policy.name]
        figures |= divergences.measure(policy)
        for benchmark, answers, part in policy.by_benchmark(figures):
            rows = score_rows(answers, part, arguments.gold, settings.distinct_n)
            with output_file(arguments.out / policy.name / f"{benchmark}.jsonl", runs[policy.name, benchmark]) as path:
                write_jsonl(path, rows)
            log.info("%s: scored %d answers of %s", benchmark, len(rows), policy.name)
