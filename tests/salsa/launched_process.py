"""What a process of tests/salsa/launched.py runs.

accelerate shards models only over GPUs (FSDP, DeepSpeed). Here it does the same on CPUs.
"""

import importlib
import itertools
import os
import sys
from pathlib import Path

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DeepSpeedPlugin, DistributedType, FullyShardedDataParallelPlugin

from salsa.__main__ import COMMANDS
from salsa.runtime.command import main

plain = AcceleratorState.__init__
for stage in ("align", "sft", "reward", "dpo"):
    importlib.import_module(COMMANDS[stage][0])


def with_shards(self: AcceleratorState, *arguments: object, **options: object) -> None:
    plain(self, *arguments, **options)
    if self.distributed_type != DistributedType.MULTI_CPU:
        return
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        self.fsdp_plugin, self.distributed_type = FullyShardedDataParallelPlugin(), DistributedType.FSDP
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        self.deepspeed_plugins, self.distributed_type = DeepSpeedPlugin(), DistributedType.DEEPSPEED
        self.deepspeed_plugins.select(_from_accelerator_state=True)
    PartialState._shared_state["distributed_type"] = self.distributed_type


def run_all(words: list[str]) -> int:
    """Run the stages one after the other, as if each had its own process; returns the first exit status but 0.

    A stage that fails does not keep the next one from running.
    """
    statuses = []
    stages = [list(stage) for is_end, stage in itertools.groupby(words, "++".__eq__) if not is_end]
    ports = os.environ.get("PORTS", "").split()  # where the processes meet for each stage
    for stage, port in itertools.zip_longest(stages, ports):
        AcceleratorState._reset_state(reset_partial_state=True)
        sys.argv[1:] = stage
        if port:
            os.environ["MASTER_PORT"] = port
        statuses.append(main("salsa", COMMANDS))
    return next((status for status in statuses if status), 0)


def run(words: list[str], environment: dict[str, str], threads: int, output: Path) -> None:
    """Run stages in this process, which ends with their exit status. Its stderr goes to `output`."""
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(threads)
    with output.open("w") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    AcceleratorState.__init__ = with_shards
    sys.exit(run_all(words))
