"""The card of a reward model, or of several combined: accuracy on held-out pairs, and the scale of its scores.

The scale is mean and std of the scores of SFT 1's samples. It normalises the scores, so that all rewards have one unit.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import scipy
from transformers import PreTrainedModel

from salsa.checkpoints.loading import load_causal, load_tokenizer
from salsa.config.sections import Reward
from salsa.data.token_cache import Prepared
from salsa.devices import processes
from salsa.models.sampling import sample
from salsa.models.scoring import batches_by_length, rewards
from salsa.runtime.errors import UserError
from salsa.runtime.seeds import derive_seed

CONFIDENCE = 0.95
Score = Callable[[list[list[int]]], list[float]]  # scores of sequences; higher is better


def batch_size(settings: Reward) -> int:
    """Dialogues per forward pass."""
    return settings.micro_batch_size or settings.batch_size


def raw_scores(model: PreTrainedModel, settings: Reward, sequences: list[list[int]]) -> list[float]:
    """A reward model's raw scores of all sequences, computed by all processes together."""
    local_rows = processes.even_rows(len(sequences))
    local = [sequences[row] for row in local_rows]
    scores = rewards(model, local, batches_by_length(list(map(len, local)), batch_size(settings)))
    return processes.gather_rows(dict(zip(local_rows, scores, strict=True)))


def accuracy_interval(correct: int, count: int) -> tuple[float | None, float | None, float | None]:
    """Accuracy with its Wilson interval; all None if count is 0."""
    if not count:
        return None, None, None
    interval = scipy.stats.binomtest(correct, count).proportion_ci(CONFIDENCE, method="wilson")
    return correct / count, float(interval.low), float(interval.high)


def evaluate(score: Score, test: Prepared) -> dict[str, Any]:
    """Accuracy on held-out pairs, against the annotators' choice and (mini world) against the gold reward."""
    pairs = list(test.data)
    scores = score([pair[side] for pair in pairs for side in ("chosen_ids", "rejected_ids")])
    higher = [chosen > rejected for chosen, rejected in zip(scores[::2], scores[1::2], strict=True)]
    accuracy, low, high = accuracy_interval(sum(higher), len(higher))
    card = {
        "pairs_test": len(pairs),
        "dropped_test": test.counts["rows"] - test.counts["used"],
        "accuracy": accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
    }
    gold = [
        right == (pair["gold_chosen"] > pair["gold_rejected"])
        for pair, right in zip(pairs, higher, strict=True)
        if pair["gold_chosen"] is not None and pair["gold_chosen"] != pair["gold_rejected"]
    ]
    accuracy, low, high = accuracy_interval(sum(gold), len(gold))
    return {
        **card,
        "accuracy_gold": accuracy,
        "accuracy_gold_low": low,
        "accuracy_gold_high": high,
        "pairs_gold": len(gold) or None,
    }


def samples_of(sft: Path, settings: Reward, prompts: Sequence[list[int]], seed: int) -> list[list[int]]:
    """Prompts with SFT 1's answers at temperature 1, sampled by all processes together."""
    tokenizer = load_tokenizer(sft)
    policy = load_causal(sft, settings.dtype)
    local_rows = processes.even_rows(len(prompts))
    sequences: dict[int, list[int]] = {}
    for begin in range(0, len(local_rows), batch_size(settings)):
        rows = local_rows[begin : begin + batch_size(settings)]
        answers = sample(
            policy,
            [prompts[row] for row in rows],
            [1.0] * len(rows),
            settings.max_new_tokens,
            [derive_seed(seed, "sample", row) for row in rows],
            [tokenizer.eos_token_id],
            tokenizer.pad_token_id,
        )
        sequences |= {row: prompts[row] + answer.token_ids for row, answer in zip(rows, answers, strict=True)}
    return processes.gather_rows(sequences)


def mean_and_std(scores: Sequence[float]) -> tuple[float, float]:
    """Mean and std of the scores of SFT 1's samples. A UserError if all are equal."""
    if len(scores) < 2 or not statistics.stdev(scores) > 0:
        raise UserError("reward.normalisation_prompts: all samples of SFT 1 have one score: give at least two prompts")
    return statistics.fmean(scores), statistics.stdev(scores)


def reward_card(score: Score, data: Mapping[str, Prepared], sft: Path, settings: Reward, seed: int) -> dict[str, Any]:
    """The card of a reward whose scores are `score`."""
    card = evaluate(score, data["reward.test"])
    prompts = list(data["reward.normalisation_prompts"].data["ids"])
    mean, std = mean_and_std(score(samples_of(sft, settings, prompts, seed)))
    return {**card, "mean": mean, "std": std, "samples": len(prompts)}
