"""snakemake that asks after its jobs every second: the Slurm plugin waits longer each time, and no option caps it."""

import sys

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

RemoteExecutor.next_seconds_between_status_checks = property(lambda self: 1.0, lambda self, value: None)

sys.exit(main())
