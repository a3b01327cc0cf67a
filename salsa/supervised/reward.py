"""Stage `reward`: train the reward model with TRL's RewardTrainer, evaluate it on held-out pairs, normalise it.

It starts from SFT 1 with a new scalar head. The score is normalised to mean 0 and std 1 on SFT 1's own samples; both
numbers are stored in config.json (`reward_mean`, `reward_std`), so all methods use the same scale.

With `reward.held_out` the pairs are dealt in halves: one for the reward models that policies are trained against, the
other for a model that only scores their answers (`--held-out`).
"""

import argparse
import gc
import json
import statistics
from pathlib import Path
from typing import Any

import scipy
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, PreTrainedModel
from trl import RewardConfig, RewardTrainer

from salsa.checkpoints.loading import load_causal, load_tokenizer
from salsa.checkpoints.saving import check_saving
from salsa.config.sections import Reward
from salsa.data.token_cache import Prepared, prepare
from salsa.data.training_sets import reward_sets
from salsa.devices import processes
from salsa.lora.checkpoint import save_trained
from salsa.models.sampling import sample
from salsa.models.scoring import batches_by_length, new_head, rewards
from salsa.runtime.errors import UserError
from salsa.runtime.log import log
from salsa.runtime.outputs import output_file, output_folder, scratch
from salsa.runtime.provenance import Run
from salsa.runtime.seeds import derive_seed, run_seed
from salsa.runtime.settings import load_settings
from salsa.supervised.trl_trainers import Progress, StageTrainer, distributed, model_to_train, trainer_arguments

CONFIDENCE = 0.95


class PooledRewardTrainer(StageTrainer, RewardTrainer):
    """TRL's RewardTrainer on batches of similar length."""


def train(sft: Path, settings: Reward, data: Prepared, seed: int, work: Path) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Train on preference pairs; returns the model and facts for its card.

    The model is returned in float32 even if it was sharded, so that the normalisation does not depend on the number of
    processes.
    """
    model = model_to_train(AutoModelForSequenceClassification, sft, settings, seed)
    new_head(model, torch.Generator().manual_seed(derive_seed(seed, "head")))
    trainer = PooledRewardTrainer(
        model=model,
        args=RewardConfig(
            **trainer_arguments(settings, derive_seed(seed, "order"), work),
            max_length=None,  # longer pairs are left out of the data
        ),
        train_dataset=data.data,
        processing_class=load_tokenizer(sft),
        callbacks=[Progress("reward")],
    )
    check_saving(trainer.model, trainer.processing_class, work, settings.dtype)
    result = trainer.train()
    left_out = data.counts["rows"] - data.counts["used"]
    card = {"pairs_train": len(data.data), "dropped_train": left_out, "loss": round(result.training_loss, 5)}
    return trainer.complete_model(AutoModelForSequenceClassification, "float32").eval(), card


def half_of(pairs: Dataset, held_out: bool, seed: int) -> Dataset:
    """The half of the pairs for the held-out reward model, or the other one; the order stays."""
    if len(pairs) < 2:
        raise UserError("reward.held_out: one pair cannot be dealt in halves: give more, or remove held_out")
    shuffled = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed)).tolist()
    middle = len(pairs) // 2
    return pairs.select(sorted(shuffled[middle:] if held_out else shuffled[:middle]))


def accuracy_interval(correct: int, count: int) -> tuple[float | None, float | None, float | None]:
    """Accuracy with its Wilson interval; all None if count is 0."""
    if not count:
        return None, None, None
    interval = scipy.stats.binomtest(correct, count).proportion_ci(CONFIDENCE, method="wilson")
    return correct / count, float(interval.low), float(interval.high)


def raw_scores(model: PreTrainedModel, sequences: list[list[int]], batch: int) -> list[float]:
    """Raw scores of all sequences, computed by all processes together."""
    local_rows = processes.even_rows(len(sequences))
    local = [sequences[row] for row in local_rows]
    scores = rewards(model, local, batches_by_length(list(map(len, local)), batch))
    return processes.gather_rows(dict(zip(local_rows, scores, strict=True)))


def evaluate(model: PreTrainedModel, test: Prepared, batch: int) -> dict[str, Any]:
    """Accuracy on held-out pairs, against the annotators' choice and (mini world) against the gold reward."""
    pairs = list(test.data)
    sequences = [pair[side] for pair in pairs for side in ("chosen_ids", "rejected_ids")]
    scores = raw_scores(model, sequences, batch)
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


def normalisation_of(
    model: PreTrainedModel, sft: Path, settings: Reward, prompts: list[list[int]], seed: int
) -> tuple[float, float]:
    """Mean and std of the raw score over SFT 1's samples at temperature 1."""
    tokenizer = load_tokenizer(sft)
    policy = load_causal(sft, settings.dtype)
    batch = settings.micro_batch_size or settings.batch_size
    local_rows = processes.even_rows(len(prompts))
    sequences: dict[int, list[int]] = {}
    for begin in range(0, len(local_rows), batch):
        rows = local_rows[begin : begin + batch]
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
    scores = raw_scores(model, processes.gather_rows(sequences), batch)
    if len(scores) < 2 or not statistics.stdev(scores) > 0:
        raise UserError("reward.normalisation_prompts: all samples of SFT 1 have one score: give at least two prompts")
    return statistics.fmean(scores), statistics.stdev(scores)


@distributed("reward")
def run(arguments: argparse.Namespace) -> None:
    settings = load_settings(arguments.settings, Reward)
    sources = {"train": settings.train, "test": settings.test, "normalisation_prompts": settings.normalisation_prompts}
    inputs = {"sft": arguments.sft} | {key: Path(source.path) for key, source in sources.items() if source.path}
    reward_seed: int = arguments.reward_seed
    if arguments.held_out:
        if settings.held_out is None:
            raise UserError("--held-out: the settings have no held_out: give it a seed")
        reward_seed = settings.held_out
    seeds = {"seed": arguments.seed, "reward_seed": reward_seed, "run": arguments.run}
    root = derive_seed(run_seed(arguments.seed, arguments.run), "reward", reward_seed)
    record = Run("reward", {**settings.model_dump(), "is_held_out": arguments.held_out}, inputs, seeds)
    tokenizer = load_tokenizer(arguments.sft)
    sets = reward_sets(settings, arguments.seed)
    data = {name: prepare(name, wanted, tokenizer, arguments.prepared) for name, wanted in sets.items()}
    if settings.held_out is not None:
        pairs = data["reward.train"]
        half = half_of(pairs.data, arguments.held_out, derive_seed(arguments.seed, "reward", "halves"))
        data["reward.train"] = pairs._replace(data=half)
    with scratch(arguments.out) as work:
        model, card = train(arguments.sft, settings, data["reward.train"], root, work)
    gc.collect()  # frees the Trainer, whose optimiser holds three times the model's memory
    batch = settings.micro_batch_size or settings.batch_size
    card |= evaluate(model, data["reward.test"], batch)
    prompts = list(data["reward.normalisation_prompts"].data["ids"])
    mean, std = normalisation_of(model, arguments.sft, settings, prompts, root)
    card |= {"mean": mean, "std": std, "samples": len(prompts)}
    log.info("reward: accuracy %s of %d held-out pairs", card["accuracy"], card["pairs_test"])
    record.extra = {"card": card, "data": {name: prepared.counts for name, prepared in data.items()}}
    record.extra["processes"] = processes.count()
    if not processes.is_main():
        return
    model.config.reward_mean, model.config.reward_std = mean, std
    with output_folder(arguments.out, record) as folder:
        save_trained(model, tokenizer, folder, settings.dtype)
    with output_file(arguments.card) as path:
        path.write_text(json.dumps(card, indent=2) + "\n")
