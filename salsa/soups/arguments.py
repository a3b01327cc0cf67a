"""The arguments of `soup`, `warp` and `perturb`. Imports nothing heavy: help and errors come at once."""

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
    parser.add_argument(
        "--slerp-from",
        type=Path,
        metavar="DIR",
        help="average on the arc between the changes from this checkpoint; as an ingredient it draws the result to it",
    )
    parser.add_argument("--settings", default="{}", help="the config's soup section: JSON or FILE.yaml#section")
    parser.add_argument("--allow-any-sum", action="store_true", help="weights need not sum to 1")
    parser.add_argument("--processes", type=count, default=1, help="processes that share the tensors (default 1)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the soup")


def warp(parser: argparse.ArgumentParser) -> None:
    soup(parser)
    parser.add_argument("--runs", type=count, required=True, help="runs of a round")
    parser.add_argument(
        "--metrics-of", type=Path, nargs="+", required=True, metavar="FILE", help="metrics of all runs, by round"
    )
    parser.add_argument("--metrics", type=Path, required=True, help="JSONL file, one line per step")


def perturb(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--of", type=Path, required=True, help="checkpoint to start from")
    parser.add_argument("--like", type=Path, required=True, help="checkpoint whose distance sets the size of the noise")
    parser.add_argument("--seed", type=int, required=True, help="the config's seed")
    add_run_argument(parser)
    parser.add_argument("--draw", type=int, default=1, help="number of the random direction (default 1)")
    parser.add_argument("--out", type=Path, required=True)
