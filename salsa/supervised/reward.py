"""Stage `reward`: train the reward model with TRL's RewardTrainer, evaluate it on held-out pairs, normalise it.

It starts from SFT 1 with a new scalar head. The score is normalised to mean 0 and std 1 on SFT 1's own samples; both
numbers are stored in config.json (`reward_mean`, `reward_std`), so all methods use the same scale.

With `reward.held_out` the pairs are dealt in halves: one for the reward models that policies are trained against, the
other for a model that only scores their answers (`--held-out`).

Further reward models to combine with the first one (`--order`, combine.py) have the same head and read the same pairs
in another order.
"""

import argparse
import gc
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, PreTrainedModel
from trl import RewardConfig, RewardTrainer

from salsa.checkpoints.loading import load_tokenizer
from salsa.checkpoints.saving import check_saving
from salsa.config.sections import Reward
from salsa.data.token_cache import Prepared, prepare
from salsa.data.training_sets import reward_sets
from salsa.devices import processes
from salsa.lora.checkpoint import save_trained
from salsa.models.scoring import new_head
from salsa.runtime.errors import UserError
from salsa.runtime.log import log
from salsa.runtime.outputs import output_file, output_folder, scratch
from salsa.runtime.provenance import Run
from salsa.runtime.seeds import derive_seed, run_seed
from salsa.runtime.settings import load_settings
from salsa.supervised.reward_card import raw_scores, reward_card
from salsa.supervised.trl_trainers import Progress, StageTrainer, distributed, model_to_train, trainer_arguments


class PooledRewardTrainer(StageTrainer, RewardTrainer):
    """TRL's RewardTrainer on batches of similar length."""


def train(
    sft: Path, settings: Reward, data: Prepared, seed: int, work: Path, order: int = 1
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Train on preference pairs in the order of this number; returns the model and facts for its card.

    The model is returned in float32 even if it was sharded, so that the normalisation does not depend on the number of
    processes.
    """
    model = model_to_train(AutoModelForSequenceClassification, sft, settings, seed)
    new_head(model, torch.Generator().manual_seed(derive_seed(seed, "head")))
    trainer = PooledRewardTrainer(
        model=model,
        args=RewardConfig(
            **trainer_arguments(settings, derive_seed(seed, *order_name(order)), work),
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


def order_name(order: int) -> list[str | int]:
    """Name of the seed of an order of the pairs. The first one has no number."""
    return ["order", *([order] if order > 1 else [])]


def half_of(pairs: Dataset, held_out: bool, seed: int) -> Dataset:
    """The half of the pairs for the held-out reward model, or the other one; the order stays."""
    if len(pairs) < 2:
        raise UserError("reward.held_out: one pair cannot be dealt in halves: give more, or remove held_out")
    shuffled = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed)).tolist()
    middle = len(pairs) // 2
    return pairs.select(sorted(shuffled[middle:] if held_out else shuffled[:middle]))


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
    if arguments.order > 1:
        seeds["order"] = arguments.order
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
        model, card = train(arguments.sft, settings, data["reward.train"], root, work, arguments.order)
    gc.collect()  # frees the Trainer, whose optimiser holds three times the model's memory
    card |= reward_card(partial(raw_scores, model, settings), data, arguments.sft, settings, root)
    log.info("reward: accuracy %s of %d held-out pairs", card["accuracy"], card["pairs_test"])
    record.extra = {"card": card, "data": {name: prepared.counts for name, prepared in data.items()}}
    record.extra["processes"] = processes.count()
    if not processes.is_main():
        return
    model.config.reward_mean, model.config.reward_std = card["mean"], card["std"]
    with output_folder(arguments.out, record) as folder:
        save_trained(model, tokenizer, folder, settings.dtype)
    with output_file(arguments.card) as path:
        path.write_text(json.dumps(card, indent=2) + "\n")
