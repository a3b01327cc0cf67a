"""One of the processes of a stage on CPUs: `python tests/salsa/launched_process.py STAGE …`.

accelerate shards models over GPUs alone, by FSDP and by DeepSpeed. Told that it may, it does the same on CPUs: that is
all that is done here.
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
