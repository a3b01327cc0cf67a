"""One of the processes of `python -m salsa align` on CPUs.

accelerate shards models over GPUs alone. Told that it may, it does the same on CPUs: only that is done here.
"""

import os
import sys

from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from ppo_case import COMMANDS

from salsa.stage import main

if __name__ == "__main__":
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        state = Accelerator().state
        state.fsdp_plugin = FullyShardedDataParallelPlugin()
        state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    sys.exit(main("salsa", COMMANDS))
