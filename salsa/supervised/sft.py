"""Stage `sft`: fine-tune a base model on demonstrations with TRL's SFTTrainer; the loss is on assistant tokens only.

Seeds differ in the order of the data and, if `sample` is below 1, in the share of the demonstrations that they use.
With `lora` all seeds start from the same adapter.
"""

import argparse
import random
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from trl import SFTConfig, SFTTrainer

from salsa.checkpoints.loading import load_tokenizer
from salsa.checkpoints.saving import check_saving
from salsa.config.sections import Sft
from salsa.data.token_cache import IGNORED, Prepared, prepare
from salsa.data.training_sets import sft_sets
from salsa.devices import processes
from salsa.lora.checkpoint import save_trained
from salsa.runtime.log import log
from salsa.runtime.outputs import output_folder, scratch
from salsa.runtime.provenance import Run
from salsa.runtime.seeds import derive_seed, run_seed
from salsa.runtime.settings import load_settings
from salsa.supervised.trl_trainers import Progress, StageTrainer, distributed, model_to_train, trainer_arguments


class PooledSFTTrainer(StageTrainer, SFTTrainer):
    """TRL's SFTTrainer on batches of similar length, with a held-out loss that does not depend on batch size."""

    def held_out_loss(self) -> float:
        """Mean loss per token over the evaluation set, in nats.

        The Trainer's `eval_loss` averages the means of batches, which gives tokens of short answers more weight.
        """
        self.nats, self.tokens = 0.0, 0
        self.evaluate()
        return self.nats / self.tokens

    def prediction_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Tensor, None, None]:
        """Add one batch's loss to the sums, over the rows of all processes, each once."""
        inputs = self._prepare_inputs(inputs)
        targets = inputs["labels"][:, 1:]
        with torch.no_grad(), self.compute_loss_context_manager():
            # In chunks, as in training: the logits of a whole batch would be most of the stage's memory.
            nats = -model(**inputs, fused_lm_head=True).log_probs.double().sum(1)
        nats, tokens = self.accelerator.gather_for_metrics((nats, (targets != IGNORED).sum(1)))
        self.nats += nats.sum().item()
        self.tokens += int(tokens.sum())
        return nats.sum() / tokens.sum().clamp(min=1), None, None


def random_share(count: int, fraction: float, seed: int) -> list[int]:
    """Sorted indices of a random share of `count` rows; at least one."""
    return sorted(random.Random(seed).sample(range(count), max(1, round(fraction * count))))


def train(
    base: Path, settings: Sft, seed: int, sft_seed: int, work: Path, cache: Path, run: str = ""
) -> tuple[PooledSFTTrainer, dict[str, Any]]:
    """Train; returns the trainer and facts for run.json, among them the held-out loss (nats per assistant token)."""
    tokenizer, root = load_tokenizer(base), run_seed(seed, run)
    sets: dict[str, Prepared] = {
        name: prepare(name, wanted, tokenizer, cache) for name, wanted in sft_sets(settings, seed).items()
    }
    data = sets["sft.train"].data
    selected = data.select(random_share(len(data), settings.sample, derive_seed(root, "sft", sft_seed, "sample")))
    trainer = PooledSFTTrainer(
        model=model_to_train(AutoModelForCausalLM, base, settings, derive_seed(root, "sft")),
        args=SFTConfig(
            **trainer_arguments(settings, derive_seed(root, "sft", sft_seed, "order"), work),
            max_length=None,  # the data are truncated already
        ),
        train_dataset=selected,
        eval_dataset=sets["sft.test"].data,
        processing_class=tokenizer,
        callbacks=[Progress("sft")],
    )
    check_saving(trainer.model, tokenizer, work, settings.dtype)
    trainer.train()
    return trainer, {
        "demonstrations": len(selected),
        "data": {name: prepared.counts for name, prepared in sets.items()},
        "steps": trainer.state.global_step,
        "test_loss": round(trainer.held_out_loss(), 5),
        "processes": processes.count(),
    }


@distributed("sft")
def run(arguments: argparse.Namespace) -> None:
    settings = load_settings(arguments.settings, Sft)
    inputs = {"base": arguments.base}
    inputs |= {key: Path(s.path) for key, s in (("train", settings.train), ("test", settings.test)) if s.path}
    seeds = {"seed": arguments.seed, "sft_seed": arguments.sft_seed, "run": arguments.run}
    record = Run("sft", settings.model_dump(), inputs, seeds)
    with scratch(arguments.out) as work:
        trainer, record.extra = train(
            arguments.base, settings, arguments.seed, arguments.sft_seed, work, arguments.prepared, arguments.run
        )
    log.info("sft %d: %d steps, test loss %.4f", arguments.sft_seed, record.extra["steps"], record.extra["test_loss"])
    model = trainer.complete_model(AutoModelForCausalLM, settings.dtype)
    if processes.is_main():
        with output_folder(arguments.out, record) as folder:
            save_trained(model, trainer.processing_class, folder, settings.dtype)
