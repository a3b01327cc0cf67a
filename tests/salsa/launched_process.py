"""One process of a stage on CPUs: `python tests/salsa/launched_process.py STAGE …`.

accelerate shards models only over GPUs (FSDP, DeepSpeed). This script makes it do the same on CPUs, and nothing else.
"""

import os
import sys

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DeepSpeedPlugin, DistributedType, FullyShardedDataParallelPlugin

from salsa.__main__ import COMMANDS
from salsa.runtime.command import main

plain = AcceleratorState.__init__


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


if __name__ == "__main__":
    AcceleratorState.__init__ = with_shards
    sys.exit(main("salsa", COMMANDS))
