"""Stage `dpo`: train a policy on preference pairs with TRL's DPOTrainer, against a fixed reference.

With a soup as --reference this is soup-DPO. The reference's log-probabilities are computed once before training; its
models are then freed. With `lora` references that have the policy's base share it.
"""

import argparse
import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl import DPOConfig, DPOTrainer
from trl.trainer import add_fused_lm_head

from salsa.checkpoints.adapters import copy_checkpoint
from salsa.checkpoints.loading import check_vocabularies, load_causal, load_tokenizer
from salsa.checkpoints.saving import KEPT, check_saving, kept_checkpoints
from salsa.config.algorithms import Dpo
from salsa.config.arguments import reference_inputs
from salsa.config.references import Strategy, strategy_data
from salsa.data.token_cache import prepare
from salsa.data.training_sets import dpo_sets
from salsa.devices import processes
from salsa.lora.checkpoint import save_trained
from salsa.lora.shared import SharedBase
from salsa.models.frozen import Frozen, FrozenOnDevice
from salsa.models.sharded import is_sharded
from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import write_jsonl
from salsa.runtime.log import log
from salsa.runtime.outputs import output_file, output_folder, scratch
from salsa.runtime.provenance import Run
from salsa.runtime.seeds import derive_seed, run_seed
from salsa.runtime.settings import load_settings
from salsa.supervised.trl_trainers import Progress, StageTrainer, distributed, model_to_train, trainer_arguments

# TRL's metric names and ours (docs/metrics.md).
METRICS = {
    "loss": "loss",
    "rewards/accuracies": "reward_accuracy",
    "rewards/margins": "reward_margin",
    "rewards/chosen": "reward_chosen",
    "rewards/rejected": "reward_rejected",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
}


class ReferencesTrainer(StageTrainer, DPOTrainer):
    """TRL's DPOTrainer on batches of similar length, with a reference strategy over one or more models."""

    def __init__(self, references: Sequence[Frozen], strategy: Strategy, **options: Any):
        self.references, self.strategy = list(references), strategy
        super().__init__(**options)
        self.references = []

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        """Return the pairs unchanged; they are tokenized already."""
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        """Add the reference's log-probabilities of all pairs, on every process.

        TRL's version stores them in a file, which fails here: our pairs are in memory, so each process would look in a
        different folder.
        """
        loader = self.accelerator.prepare(DataLoader(dataset, batch_size, collate_fn=self.data_collator))
        gather = self.accelerator.gather_for_metrics
        parts = [gather(self.compute_ref_log_probs(self.model, batch)) for batch in loader]
        for side, log_probs in zip(("chosen", "rejected"), zip(*parts, strict=True), strict=True):
            dataset = dataset.add_column(f"ref_{side}_logps", torch.cat(log_probs).tolist())
        return dataset

    def compute_ref_log_probs(self, model: PreTrainedModel, inputs: dict[str, Any]) -> tuple[Tensor, ...]:
        """The reference's log-probs of chosen and rejected answers, each [B]. `model`, the policy, is not used."""
        compute = partial(super().compute_ref_log_probs, inputs=inputs)
        parts = [reference.forward(compute) for reference in self.references]
        return tuple(self.strategy.combine(side) for side in zip(*parts, strict=True))


def load_references(policy: PreTrainedModel, folders: Sequence[Path], settings: Dpo) -> list[Frozen]:
    """The models of the reference, frozen; on the policy's base if it trains an adapter of theirs."""
    shared = None if settings.lora is None else SharedBase(policy, settings.dtype)
    references: list[Frozen] = []
    for folder in folders:
        if shared is not None and shared.has(folder):
            references.append(shared.frozen(folder))
        else:
            model = load_causal(folder, settings.dtype)
            add_fused_lm_head(model)
            references.append(FrozenOnDevice(model))
    return references


class History(TrainerCallback):
    """Collects the Trainer's metrics of each step."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs:
            figures = {name: float(logs[key]) for key, name in METRICS.items() if key in logs}
            self.rows.append({"step": state.global_step - 1, **figures})


class Keep(TrainerCallback):
    """Calls `save` after some numbers of steps."""

    def __init__(self, steps: Sequence[int], save: Callable[[int], None]):
        self.steps, self.save = steps, save

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if late := [step for step in self.steps if step >= state.max_steps]:
            raise UserError(
                f"dpo.checkpoints_at: {late[0]} is not before the last of {state.max_steps} steps: remove it"
            )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step in self.steps:
            self.save(state.global_step)


def split(pair: dict[str, Any]) -> dict[str, list[int]]:
    """Convert a pair to TRL's DPO format: prompt, chosen answer, rejected answer."""
    begin = pair["prompt_length"]
    answers = {side: pair[side][begin:] for side in ("chosen_ids", "rejected_ids")}
    return {"prompt_ids": pair["chosen_ids"][:begin], **answers}


def train(
    init: Path,
    references: Sequence[Path],
    strategy: Strategy,
    settings: Dpo,
    seed: int,
    rl_seed: int,
    work: Path,
    cache: Path,
    run: str = "",
) -> tuple[ReferencesTrainer, list[dict[str, Any]], dict[str, int]]:
    """Train; returns the trainer, the metrics of each step, and the data counts."""
    tokenizer = load_tokenizer(init)
    check_vocabularies(tokenizer, [("--reference", folder) for folder in references])
    pairs = prepare("dpo.train", dpo_sets(settings, seed)["dpo.train"], tokenizer, cache)
    history = History()
    root = derive_seed(run_seed(seed, run), "dpo", rl_seed)
    arguments = trainer_arguments(settings, derive_seed(run_seed(seed, run), "dpo", rl_seed, "order"), work)
    policy = model_to_train(AutoModelForCausalLM, init, settings, root)
    trainer = ReferencesTrainer(
        references=load_references(policy, references, settings),
        strategy=strategy,
        model=policy,
        args=DPOConfig(
            **{**arguments, "logging_steps": 1},
            beta=settings.beta,
            max_length=None,  # longer pairs are left out of the data
            precompute_ref_log_probs=True,
            disable_dropout=True,
        ),
        train_dataset=pairs.data.map(split, keep_in_memory=True),
        processing_class=tokenizer,
        callbacks=[history, Progress("dpo")],
    )
    check_saving(trainer.model, tokenizer, work, settings.dtype)

    def save(step: int) -> None:
        model = trainer.complete_model(AutoModelForCausalLM, settings.dtype)
        if processes.is_main():
            # Saving casts whole models in place, and training goes on.
            own = model if settings.lora is not None or is_sharded(trainer.model) else copy.deepcopy(model)
            with output_folder(work / KEPT / str(step)) as folder:
                save_trained(own, tokenizer, folder, settings.dtype)

    trainer.add_callback(Keep(settings.checkpoints_at, save))
    trainer.train()
    return trainer, history.rows, pairs.counts


@distributed("dpo")
def run(arguments: argparse.Namespace) -> None:
    strategy = arguments.strategy
    settings = load_settings(arguments.settings, Dpo)
    inputs = {"init": arguments.init} | reference_inputs(arguments.reference)
    if settings.train.path is not None:
        inputs["train"] = Path(settings.train.path)
    recorded = {**settings.model_dump(), "reference": strategy_data(strategy)}
    seeds = {"seed": arguments.seed, "rl_seed": arguments.rl_seed, "run": arguments.run}
    record = Run("dpo", recorded, inputs, seeds)
    with scratch(arguments.out) as work:
        trainer, history, counts = train(
            arguments.init,
            arguments.reference,
            strategy,
            settings,
            arguments.seed,
            arguments.rl_seed,
            work,
            arguments.prepared,
            arguments.run,
        )
        record.extra = {"data": {"dpo.train": counts}, "last_step": history[-1], "processes": processes.count()}
        log.info("dpo: %s", history[-1])
        model = trainer.complete_model(AutoModelForCausalLM, settings.dtype)
        if not processes.is_main():
            return
        with output_folder(arguments.out, record) as folder, torch.no_grad():
            save_trained(model, trainer.processing_class, folder, settings.dtype)
            for step, checkpoint in kept_checkpoints(work).items():
                copy_checkpoint(checkpoint, folder / KEPT / str(step))
        with output_file(arguments.metrics) as path:
            write_jsonl(path, history)
