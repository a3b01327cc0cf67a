"""Snakemake with a Slurm plugin that polls its jobs every second. The plugin polls less and less often, and has no
option to limit that.
"""

import sys

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

RemoteExecutor.next_seconds_between_status_checks = property(lambda self: 1.0, lambda self, value: None)

sys.exit(main())
