"""The arguments of `compare`. Imports nothing heavy: help and errors come at once."""

import argparse
from pathlib import Path

from salsa.runtime.argument_types import positive

MARGIN = 0.05


def command(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", type=Path, help="results folder of the first grid, such as results/mini")
    parser.add_argument("b", type=Path, help="results folder of the second grid")
    parser.add_argument(
        "--margin",
        type=positive,
        default=MARGIN,
        help=f"a difference in win rates that does not matter (default {MARGIN:g})",
    )
    parser.add_argument("--out", type=Path, help="CSV file with all differences, those of all cells among them")
