"""The arguments of `plan`. Imports nothing heavy: help and errors come at once."""

import argparse
from pathlib import Path

from eval.costs.assumed import assumed
from salsa.runtime.argument_types import count, positive


def plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, nargs="+", required=True, help="the grid's config; further files are merged over it"
    )
    parser.add_argument(
        "--device", choices=sorted(assumed().devices), default="h100", help="default h100; cpu is one CPU core"
    )
    parser.add_argument("--count", type=count, default=8, help="the number of devices (default 8)")
    parser.add_argument("--hourly", type=float, help="the price of a device hour, in any currency")
    parser.add_argument("--gantt", type=Path, metavar="FILE.svg", help="also draw the schedule and its critical path")
    parser.add_argument(
        "--within", type=positive, metavar="HOURS", help="print what to leave out first if so many hours are at hand"
    )
    parser.add_argument(
        "--power",
        type=positive,
        metavar="DIFFERENCE",
        help="print how many replicates would find a difference of this size",
    )
    parser.add_argument(
        "--like",
        type=Path,
        metavar="FOLDER",
        help="results of a finished grid whose runs and questions vary alike (default: the project's results/mini)",
    )
