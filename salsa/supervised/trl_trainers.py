"""Shared code of the stages that train with TRL: Trainer arguments, log lines, batches of similar length."""

import contextlib
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType
from datasets import Dataset, disable_progress_bars
from torch.utils.data import Sampler
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from salsa.checkpoints.loading import load_causal, load_reward
from salsa.config.sections import Optimisation
from salsa.devices import processes
from salsa.lora.checkpoint import load_for_training
from salsa.models.sharded import gather_model, is_sharded
from salsa.models.training import pooled_batches
from salsa.runtime.errors import UserError
from salsa.runtime.log import LINES_IN_A_LOG, log


def micro_batches(settings: Optimisation, count: int) -> tuple[int, int]:
    """Micro-batch size and accumulation steps of each process when `count` processes share a batch."""
    local_size, rest = divmod(settings.batch_size, count)
    if rest:
        raise UserError(
            f"batch_size: {settings.batch_size} is not a multiple of the {count} processes: change one of them"
        )
    most = min(settings.micro_batch_size or local_size, local_size)
    micro = max(size for size in range(1, most + 1) if local_size % size == 0)
    return micro, local_size // micro


def trainer_arguments(settings: Optimisation, seed: int, work: Path) -> dict[str, Any]:
    """Arguments common to TRL's trainers. Weights stay float32; passes compute in `dtype`."""
    if not sys.stderr.isatty():
        disable_progress_bars()
    micro, passes = micro_batches(settings, processes.count())
    return {
        "output_dir": work,
        "learning_rate": settings.learning_rate,
        "num_train_epochs": settings.epochs,
        "per_device_train_batch_size": micro,
        "per_device_eval_batch_size": micro,
        "gradient_accumulation_steps": passes,
        "lr_scheduler_type": settings.schedule if settings.schedule != "constant" else "constant_with_warmup",
        "warmup_steps": settings.warmup_ratio,
        "weight_decay": settings.weight_decay,
        "bf16": settings.dtype == "bfloat16",
        "gradient_checkpointing": settings.gradient_checkpointing,
        "use_cpu": not torch.cuda.is_available(),
        "seed": seed,
        "data_seed": seed,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "steps",
        "logging_steps": 1 / LINES_IN_A_LOG,
        "disable_tqdm": not sys.stderr.isatty(),
    }


def model_to_train(auto: Any, checkpoint: Path, settings: Optimisation, seed: int) -> PreTrainedModel:
    """The checkpoint's model (`auto` is its Auto class) in float32; with `lora` its frozen base with a new adapter."""
    if settings.lora is None:
        return load_causal(checkpoint) if auto is AutoModelForCausalLM else load_reward(checkpoint)
    if processes.use_fsdp2():
        raise UserError("lora: FSDP2 shards weights that train: launch this stage without it, one copy per GPU")
    return load_for_training(auto, checkpoint, settings.lora, settings.dtype, seed)


class Progress(TrainerCallback):
    """Logs the Trainer's loss."""

    def __init__(self, what: str):
        self.what = what

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        if logs and "loss" in logs:
            log.info("%s %d/%d loss %.4g", self.what, state.global_step, state.max_steps, float(logs["loss"]))


class BatchesByLength(Sampler[int]):
    """Sampler of batches of similar length, redrawn at each pass.

    The Trainer's own `group_by_length` sorts each group from long to short, so its last steps see only short sequences.
    """

    def __init__(self, lengths: Sequence[int], size: int, seed: int):
        self.lengths, self.size = lengths, size
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        return itertools.chain.from_iterable(pooled_batches(self.lengths, self.size, self.generator))


class StageTrainer:
    """Mixin for TRL trainers: batches of similar length, one GPU per process, metrics as log lines.

    The data need a column `length`. Where lengths differ much, such batches halve the training time.
    """

    def __init__(self: Any, args: TrainingArguments, **options: Any):
        # With several visible GPUs the Trainer would split each batch over them.
        args._n_gpu = min(1, args.n_gpu)
        super().__init__(**options | {"args": args})
        self.remove_callback(PrinterCallback)  # it prints metrics as dictionaries
        # Over a base in 4 bits TRL would train an adapter in bfloat16.
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()

    def _get_train_sampler(self: Any, train_dataset: Dataset | None = None) -> BatchesByLength:
        # Not `train_dataset`: the Trainer has removed the columns that the model does not use.
        lengths = list(self.train_dataset["length"])
        # The size of a whole update over all processes, so that each update uses the rows of one batch.
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return BatchesByLength(lengths, size, self.args.data_seed)

    def complete_model(self: Any, auto: Any, dtype: str) -> PreTrainedModel:
        """The complete model on every process (all have to call); a copy in `dtype` if it is sharded."""
        return gather_model(self.model, auto, dtype) if is_sharded(self.model) else self.model


@contextlib.contextmanager
def distributed(stage: str) -> Iterator[None]:
    """Wrap a stage that may run in several processes; refuses DeepSpeed, which only the stage `align` supports."""
    with processes.process_group():
        if processes.accelerator().distributed_type == DistributedType.DEEPSPEED:
            raise UserError(
                f"{stage}: only align supports DeepSpeed: launch this stage with profiles/accelerate/fsdp2.yaml"
            )
        yield
