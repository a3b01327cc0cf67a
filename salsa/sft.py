"""Stage `sft`: fine-tunes a base model on demonstrations with TRL's SFTTrainer, loss on the assistant's tokens alone.

The seeds of one model differ in the share of the demonstrations that they see, if `sample` is below 1, and in order.
"""

import argparse
import random
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from salsa.checkpoints import load_causal, load_tokenizer
from salsa.data import Row, demonstration, load_rows
from salsa.errors import UserError
from salsa.sections import Sft
from salsa.seeds import derive_seed
from salsa.stage import Run, load_settings, log, output_folder
from salsa.training import save
from salsa.trl_trainers import LengthPooled, Progress, quiet, scratch, trainer_arguments


class PooledSFTTrainer(LengthPooled, SFTTrainer):
    """TRL's SFTTrainer on batches of similar lengths."""


def demonstrations(rows: list[Row], name: str) -> Dataset:
    """The rows' dialogues as TRL takes them."""
    return Dataset.from_list([{"messages": demonstration(row, f"{name} row {i}")} for i, row in enumerate(rows, 1)])


def share(rows: list[Row], fraction: float, seed: int) -> list[Row]:
    """A random share of the rows, in their order; never none."""
    count = max(1, round(fraction * len(rows)))
    return [rows[i] for i in sorted(random.Random(seed).sample(range(len(rows)), count))]


def train(base: Path, settings: Sft, seed: int, sft_seed: int, work: str) -> tuple[PooledSFTTrainer, dict[str, Any]]:
    """A trainer whose model is trained, and its loss on held-out demonstrations, nats a token of the assistant."""
    tokenizer = load_tokenizer(base)
    if "{% generation" not in tokenizer.chat_template.replace("{%-", "{%"):
        raise UserError(
            f"{base}: its chat template marks no assistant tokens: "
            "put {% generation %} … {% endgeneration %} round them"
        )
    rows = load_rows(settings.train, derive_seed(seed, "sft", "train"))
    chosen = share(rows, settings.sample, derive_seed(seed, "sft", sft_seed, "sample"))
    test = load_rows(settings.test, derive_seed(seed, "sft", "test"))
    trainer = PooledSFTTrainer(
        model=load_causal(base),
        args=SFTConfig(
            **trainer_arguments(settings, derive_seed(seed, "sft", sft_seed, "order"), work),
            max_length=settings.max_length,
            assistant_only_loss=True,
        ),
        train_dataset=demonstrations(chosen, "train"),
        eval_dataset=demonstrations(test, "test"),
        processing_class=tokenizer,
        callbacks=[Progress("sft")],
    )
    quiet(trainer)
    trainer.train()
    loss = trainer.evaluate()["eval_loss"]
    return trainer, {"demonstrations": len(chosen), "steps": trainer.state.global_step, "test_loss": round(loss, 5)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", type=Path, required=True, help="base checkpoint")
    parser.add_argument("--settings", required=True, help="the config's sft section: JSON or FILE.yaml#sft")
    parser.add_argument("--seed", type=int, required=True, help="the config's seed")
    parser.add_argument("--sft-seed", type=int, required=True, help="which of the SFT models")
    parser.add_argument("--out", type=Path, required=True)


def run(arguments: argparse.Namespace) -> None:
    settings = load_settings(arguments.settings, Sft)
    inputs = {"base": arguments.base}
    inputs |= {key: Path(s.path) for key, s in (("train", settings.train), ("test", settings.test)) if s.path}
    seeds = {"seed": arguments.seed, "sft_seed": arguments.sft_seed}
    record = Run("sft", settings.model_dump(), inputs, seeds)
    with scratch(arguments.out) as work:
        trainer, record.extra = train(arguments.base, settings, arguments.seed, arguments.sft_seed, work)
    log.info("sft %d: %s", arguments.sft_seed, record.extra)
    with output_folder(arguments.out, record) as folder:
        save(trainer.model, trainer.processing_class, folder, settings.dtype)
