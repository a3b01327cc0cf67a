"""Stage `reward`: trains the reward model with TRL's RewardTrainer, measures it on held-out pairs, normalises it.

It starts from SFT 1 with a new scalar head. Its score has mean 0 and standard deviation 1 on SFT 1's own samples: the
two numbers lie in its config.json as `reward_mean` and `reward_std`, and every arm divides by the same.
"""

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from scipy.stats import binomtest
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import RewardConfig, RewardTrainer

from salsa.checkpoints import load_causal, load_reward, load_tokenizer, render
from salsa.data import Row, conversation, load_rows, preference_pairs
from salsa.errors import UserError
from salsa.sampling import sample
from salsa.scoring import rewards
from salsa.sections import Reward
from salsa.seeds import derive_seed
from salsa.stage import Run, load_settings, log, output_file, output_folder
from salsa.training import save
from salsa.trl_trainers import LengthPooled, Progress, quiet, scratch, trainer_arguments

CONFIDENCE = 0.95


class PooledRewardTrainer(LengthPooled, RewardTrainer):
    """TRL's RewardTrainer on batches of similar lengths."""


def new_head(model: PreTrainedModel, generator: torch.Generator) -> None:
    """Weights of the scalar head from N(0, 1/(d + 1)) (Stiennon et al. 2020); it has no bias."""
    with torch.no_grad():
        weight = model.score.weight
        weight.copy_(torch.randn(weight.shape, generator=generator) / math.sqrt(weight.shape[1] + 1))


def train(sft: Path, settings: Reward, seed: int, work: str) -> tuple[PooledRewardTrainer, dict[str, Any]]:
    """A trainer whose model is trained on the preference pairs, and what it was trained on."""
    rows = load_rows(settings.train, derive_seed(seed, "reward", "train"))
    pairs, dropped = preference_pairs(rows)
    if not pairs:
        raise UserError(
            "reward.train: no row holds a preference (ties and empty or equal answers carry none): use more data"
        )
    model = load_reward(sft)
    new_head(model, torch.Generator().manual_seed(derive_seed(seed, "reward", "head")))
    trainer = PooledRewardTrainer(
        model=model,
        args=RewardConfig(
            **trainer_arguments(settings, derive_seed(seed, "reward", "order"), work), max_length=settings.max_length
        ),
        train_dataset=Dataset.from_list(pairs),
        processing_class=load_tokenizer(sft),
        callbacks=[Progress("reward")],
    )
    quiet(trainer)
    result = trainer.train()
    return trainer, {"pairs_train": len(pairs), "dropped_train": dropped, "loss": round(result.training_loss, 5)}


def share_right(right: int, count: int) -> tuple[float | None, float | None, float | None]:
    """The share of right orders and its Wilson interval; None of nothing."""
    if not count:
        return None, None, None
    interval = binomtest(right, count).proportion_ci(CONFIDENCE, method="wilson")
    return right / count, float(interval.low), float(interval.high)


def measured(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[Row], settings: Reward
) -> dict[str, Any]:
    """Accuracy on held-out pairs: against the annotator's choice and, in the mini world, the gold reward's order."""
    pairs, ties = preference_pairs(rows)
    kept = [row for row in rows if preference_pairs([row])[0]]
    sequences = [render(tokenizer, [*pair["prompt"], *pair[side]]) for pair in pairs for side in ("chosen", "rejected")]
    fits = [
        i for i in range(len(pairs)) if max(len(sequences[2 * i]), len(sequences[2 * i + 1])) <= settings.max_length
    ]
    batch = settings.micro_batch_size or settings.batch_size
    scores = rewards(
        model, [s for i in fits for s in sequences[2 * i : 2 * i + 2]], tokenizer.pad_token_id, batch, 0.0, 1.0
    )
    higher = [chosen > rejected for chosen, rejected in zip(scores[::2], scores[1::2], strict=True)]
    accuracy, low, high = share_right(sum(higher), len(higher))
    card = {
        "pairs_test": len(fits),
        "ties_test": ties,
        "accuracy": accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
    }
    gold = [
        right == (kept[i]["gold_chosen"] > kept[i]["gold_rejected"])
        for i, right in zip(fits, higher, strict=True)
        if kept[i].get("gold_chosen") is not None and kept[i]["gold_chosen"] != kept[i]["gold_rejected"]
    ]
    accuracy, low, high = share_right(sum(gold), len(gold))
    return {
        **card,
        "accuracy_gold": accuracy,
        "accuracy_gold_low": low,
        "accuracy_gold_high": high,
        "pairs_gold": len(gold) or None,
    }


def normalised(model: PreTrainedModel, sft: Path, settings: Reward, seed: int) -> tuple[float, float]:
    """Mean and standard deviation of the raw score over SFT 1's samples at temperature 1."""
    tokenizer = load_tokenizer(sft)
    source = settings.normalisation_prompts.model_copy(update={"limit": settings.normalisation_samples})
    rows = load_rows(source, derive_seed(seed, "reward", "normalisation"))
    prompts = [render(tokenizer, conversation(row), add_generation_prompt=True) for row in rows]
    prompts = [prompt for prompt in prompts if len(prompt) <= settings.max_length]
    policy = load_causal(sft, settings.dtype)
    batch = settings.micro_batch_size or settings.batch_size
    sequences = []
    for begin in range(0, len(prompts), batch):
        part = prompts[begin : begin + batch]
        seeds = [derive_seed(seed, "reward", "sample", begin + i) for i in range(len(part))]
        answers = sample(
            policy,
            part,
            [1.0] * len(part),
            settings.max_new_tokens,
            seeds,
            [tokenizer.eos_token_id],
            tokenizer.pad_token_id,
        )
        sequences += [prompt + answer.token_ids for prompt, answer in zip(part, answers, strict=True)]
    scores = rewards(model, sequences, tokenizer.pad_token_id, batch, 0.0, 1.0)
    if len(scores) < 2 or not statistics.stdev(scores) > 0:
        raise UserError("reward.normalisation_prompts: SFT 1's samples all score alike: give at least two prompts")
    return statistics.fmean(scores), statistics.stdev(scores)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sft", type=Path, required=True, help="SFT 1: the start, and whose samples fix the scale")
    parser.add_argument("--settings", required=True, help="the config's reward section: JSON or FILE.yaml#reward")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--card", type=Path, required=True, help="JSON file: accuracy on held-out pairs, normalisation")


def run(arguments: argparse.Namespace) -> None:
    settings = load_settings(arguments.settings, Reward)
    sources = {"train": settings.train, "test": settings.test, "normalisation_prompts": settings.normalisation_prompts}
    inputs = {"sft": arguments.sft} | {key: Path(source.path) for key, source in sources.items() if source.path}
    record = Run("reward", settings.model_dump(), inputs, {"seed": arguments.seed})
    with scratch(arguments.out) as work:
        trainer, card = train(arguments.sft, settings, arguments.seed, work)
    model, tokenizer = trainer.model.eval(), trainer.processing_class
    card |= measured(
        model, tokenizer, load_rows(settings.test, derive_seed(arguments.seed, "reward", "test")), settings
    )
    mean, std = normalised(model, arguments.sft, settings, arguments.seed)
    card |= {"mean": mean, "std": std, "samples": settings.normalisation_samples}
    log.info("reward: accuracy %s of %d held-out pairs", card["accuracy"], card["pairs_test"])
    record.extra = {"card": card}
    model.config.reward_mean, model.config.reward_std = mean, std
    with output_folder(arguments.out, record) as folder:
        save(model, tokenizer, folder, settings.dtype)
    with output_file(arguments.card) as path:
        path.write_text(json.dumps(card, indent=2) + "\n")
