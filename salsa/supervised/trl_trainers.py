"""What the stages share that train with TRL: the Trainer's arguments, its figures as log lines, its scratch folder."""

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
    PreTrainedModel,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from salsa.config.sections import Optimisation
from salsa.devices import processes
from salsa.models.sharded import in_shards, whole_copy
from salsa.models.training import pooled_batches
from salsa.runtime.errors import UserError
from salsa.runtime.log import LINES_IN_A_LOG, log


def passes_of(settings: Optimisation, count: int) -> tuple[int, int]:
    """Rows of a pass, and a process's passes an update, where `count` processes share a batch."""
    own, rest = divmod(settings.batch_size, count)
    if rest:
        raise UserError(
            f"batch_size: {settings.batch_size} is no multiple of the {count} processes: change the one or the other"
        )
    most = min(settings.micro_batch_size or own, own)
    micro = max(size for size in range(1, most + 1) if own % size == 0)
    return micro, own // micro


def trainer_arguments(settings: Optimisation, seed: int, work: Path) -> dict[str, Any]:
    """What TRL's SFT and reward trainers are told alike. Weights stay float32; passes compute in `dtype`."""
    if not sys.stderr.isatty():
        disable_progress_bars()
    micro, passes = passes_of(settings, processes.count())
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


class Progress(TrainerCallback):
    """The Trainer's loss as lines of a log file."""

    def __init__(self, what: str):
        self.what = what

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        if logs and "loss" in logs:
            log.info("%s %d/%d loss %.4g", self.what, state.global_step, state.max_steps, float(logs["loss"]))


class BatchesByLength(Sampler[int]):
    """The indices of a Trainer's batches of similar lengths, drawn anew at each pass.

    The Trainer's own `group_by_length` goes through each group from long to short, and the last steps see short
    sequences alone.
    """

    def __init__(self, lengths: Sequence[int], size: int, seed: int):
        self.lengths, self.size = lengths, size
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        return itertools.chain.from_iterable(pooled_batches(self.lengths, self.size, self.generator))


class StageTrainer:
    """Mixed into a TRL trainer: batches of similar lengths, half the time where lengths differ by much; one GPU a
    process; figures as log lines. Its data have a column `length`."""

    def __init__(self: Any, args: TrainingArguments, **options: Any):
        # Of several GPUs that the process sees, a Trainer would put a batch on each.
        args._n_gpu = min(1, args.n_gpu)
        super().__init__(**options | {"args": args})
        self.remove_callback(PrinterCallback)  # which prints the figures as dictionaries

    def _get_train_sampler(self: Any, train_dataset: Dataset | None = None) -> BatchesByLength:
        # Not those handed over: they are stripped of the columns that the model does not take.
        lengths = list(self.train_dataset["length"])
        # Of these batches the processes take a pass's rows in turn: an update is on the rows of one batch.
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return BatchesByLength(lengths, size, self.args.data_seed)

    def whole_model(self: Any, auto: Any, dtype: str) -> PreTrainedModel:
        """The model, whole on each process; all have to call. Where it is in shards it is a copy in `dtype`."""
        return whole_copy(self.model, auto, dtype) if in_shards(self.model) else self.model


@contextlib.contextmanager
def among_processes(stage: str) -> Iterator[None]:
    """Around a stage that accelerate's launcher may start in several processes (salsa/devices/processes.py)."""
    with processes.joined():
        if processes.accelerator().distributed_type == DistributedType.DEEPSPEED:
            raise UserError(
                f"{stage}: of all stages DeepSpeed is for align alone: launch it with profiles/accelerate/fsdp2.yaml"
            )
        yield
