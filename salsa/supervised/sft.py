"""Stage `sft`: fine-tunes a base model on demonstrations with TRL's SFTTrainer, loss on the assistant's tokens alone.

The seeds of one model differ in the share of the demonstrations that they see, if `sample` is below 1, and in order.
"""

import argparse
import random
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM
from trl import SFTConfig, SFTTrainer

from salsa.checkpoints.loading import load_causal, load_tokenizer
from salsa.checkpoints.saving import check_saving, save
from salsa.config.sections import Sft
from salsa.data.token_cache import IGNORED, Prepared, prepare
from salsa.data.training_sets import PREPARED, sft_sets
from salsa.devices import processes
from salsa.runtime.log import log
from salsa.runtime.outputs import output_folder, scratch
from salsa.runtime.provenance import Run
from salsa.runtime.seeds import derive_seed
from salsa.runtime.settings import load_settings
from salsa.supervised.trl_trainers import Progress, StageTrainer, among_processes, trainer_arguments


class PooledSFTTrainer(StageTrainer, SFTTrainer):
    """TRL's SFTTrainer on batches of similar lengths, with a held-out loss that no batch size changes."""

    def held_out_loss(self) -> float:
        """Nats a token over the evaluation set: the sum over its tokens, divided by their number.

        The Trainer's `eval_loss` is the mean of its batches' means, in which a token of a short answer weighs more.
        """
        self.nats, self.tokens = 0.0, 0
        self.evaluate()
        return self.nats / self.tokens

    def prediction_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Tensor, None, None]:
        """One batch; the sums are over the rows of all processes, each row once."""
        inputs = self._prepare_inputs(inputs)
        targets = inputs["labels"][:, 1:]
        with torch.no_grad(), self.compute_loss_context_manager():
            logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, :-1]
        nats = cross_entropy(logits.float().transpose(1, 2), targets, reduction="none", ignore_index=IGNORED).sum(1)
        nats, tokens = self.accelerator.gather_for_metrics((nats, (targets != IGNORED).sum(1)))
        self.nats += nats.double().sum().item()
        self.tokens += int(tokens.sum())
        return nats.sum() / tokens.sum().clamp(min=1), None, None


def share(count: int, fraction: float, seed: int) -> list[int]:
    """A random share of so many rows, as indices in their order; never none."""
    return sorted(random.Random(seed).sample(range(count), max(1, round(fraction * count))))


def train(
    base: Path, settings: Sft, seed: int, sft_seed: int, work: Path, cache: Path
) -> tuple[PooledSFTTrainer, dict[str, Any]]:
    """A trainer whose model is trained, and its loss on held-out demonstrations, nats a token of the assistant."""
    tokenizer = load_tokenizer(base)
    found: dict[str, Prepared] = {
        name: prepare(name, wanted, tokenizer, cache) for name, wanted in sft_sets(settings, seed).items()
    }
    data = found["sft.train"].data
    chosen = data.select(share(len(data), settings.sample, derive_seed(seed, "sft", sft_seed, "sample")))
    trainer = PooledSFTTrainer(
        model=load_causal(base),
        args=SFTConfig(
            **trainer_arguments(settings, derive_seed(seed, "sft", sft_seed, "order"), work),
            max_length=None,  # the data are cut
        ),
        train_dataset=chosen,
        eval_dataset=found["sft.test"].data,
        processing_class=tokenizer,
        callbacks=[Progress("sft")],
    )
    check_saving(trainer.model, tokenizer, work, settings.dtype)
    trainer.train()
    return trainer, {
        "demonstrations": len(chosen),
        "data": {name: prepared.counts for name, prepared in found.items()},
        "steps": trainer.state.global_step,
        "test_loss": round(trainer.held_out_loss(), 5),
        "processes": processes.count(),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", type=Path, required=True, help="base checkpoint")
    parser.add_argument("--settings", required=True, help="the config's sft section: JSON or FILE.yaml#sft")
    parser.add_argument("--seed", type=int, required=True, help="the config's seed")
    parser.add_argument("--sft-seed", type=int, required=True, help="which of the SFT models")
    parser.add_argument("--prepared", type=Path, default=PREPARED, help=f"cache of token ids (default {PREPARED})")
    parser.add_argument("--out", type=Path, required=True)


@among_processes("sft")
def run(arguments: argparse.Namespace) -> None:
    settings = load_settings(arguments.settings, Sft)
    inputs = {"base": arguments.base}
    inputs |= {key: Path(s.path) for key, s in (("train", settings.train), ("test", settings.test)) if s.path}
    seeds = {"seed": arguments.seed, "sft_seed": arguments.sft_seed}
    record = Run("sft", settings.model_dump(), inputs, seeds)
    with scratch(arguments.out) as work:
        trainer, record.extra = train(
            arguments.base, settings, arguments.seed, arguments.sft_seed, work, arguments.prepared
        )
    log.info("sft %d: %d steps, test loss %.4f", arguments.sft_seed, record.extra["steps"], record.extra["test_loss"])
    model = trainer.whole_model(AutoModelForCausalLM, settings.dtype)
    if processes.is_main():
        with output_folder(arguments.out, record) as folder:
            save(model, trainer.processing_class, folder, settings.dtype)
