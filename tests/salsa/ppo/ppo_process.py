"""One of the processes of `python -m salsa align` on CPUs.

accelerate shards models over GPUs alone, by FSDP and by DeepSpeed. Told that it may, it does the same on CPUs: that is
all that is done here.
"""

import os
import sys

from accelerate import Accelerator, PartialState
from accelerate.utils import DeepSpeedPlugin, DistributedType, FullyShardedDataParallelPlugin
from ppo_case import COMMANDS

from salsa.stage import main

if __name__ == "__main__":
    state, kind = Accelerator().state, None
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        state.fsdp_plugin, kind = FullyShardedDataParallelPlugin(), DistributedType.FSDP
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        state.deepspeed_plugins, kind = DeepSpeedPlugin(), DistributedType.DEEPSPEED
        state.deepspeed_plugins.select(_from_accelerator_state=True)
    if kind is not None:
        state.distributed_type = PartialState._shared_state["distributed_type"] = kind
    sys.exit(main("salsa", COMMANDS))
