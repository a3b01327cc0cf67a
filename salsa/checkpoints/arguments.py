"""The arguments of `soup` and `perturb`. Imports nothing heavy: help and errors come at once."""

import argparse
from pathlib import Path

from salsa.runtime.argument_types import count
from salsa.runtime.seeds import add_run_argument


def soup(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ingredient",
        action="append",
        required=True,
        metavar="DIR=WEIGHT",
        help="a checkpoint and its weight; repeat for each ingredient",
    )
    parser.add_argument("--settings", default="{}", help="the config's soup section: JSON or FILE.yaml#section")
    parser.add_argument("--allow-any-sum", action="store_true", help="weights need not sum to 1")
    parser.add_argument("--processes", type=count, default=1, help="processes that share the tensors (default 1)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the soup")


def perturb(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--of", type=Path, required=True, help="checkpoint to start from")
    parser.add_argument("--like", type=Path, required=True, help="checkpoint whose distance sets the size of the noise")
    parser.add_argument("--seed", type=int, required=True, help="the config's seed")
    add_run_argument(parser)
    parser.add_argument("--draw", type=int, default=1, help="number of the random direction (default 1)")
    parser.add_argument("--out", type=Path, required=True)
