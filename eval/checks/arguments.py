"""The arguments of `doctor`. Imports nothing heavy: help and errors come at once."""

import argparse
from pathlib import Path

from eval.costs.assumed import assumed
from salsa.runtime.argument_types import count


def doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, nargs="+", required=True, help="the grid's config; further files are merged over it"
    )
    parser.add_argument(
        "--device", choices=sorted(assumed().devices), help="the devices of the jobs (default: this machine's GPUs)"
    )
    parser.add_argument("--count", type=count, help="the number of devices (default: this machine's GPUs, or 1)")
    parser.add_argument("--profile", type=Path, help="the Snakemake profile (a folder) that sends jobs to a cluster")
