"""The arguments of `judge`, `grade` and `gold-judge`. Imports nothing heavy: help and errors come at once."""

import argparse
from pathlib import Path


def add_task_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of both stages. Either --out or --estimate is required."""
    parser.add_argument("--generations", type=Path, required=True, help="folder with POLICY/BENCHMARK.jsonl")
    parser.add_argument(
        "--benchmark", required=True, metavar="NAME=SETTINGS", help="NAME=JSON or NAME=FILE.yaml#benchmarks.NAME"
    )
    parser.add_argument("--settings", required=True, help="the config's judge section: JSON or FILE.yaml#judge")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--ledger", type=Path, required=True, help="folder that stores calls; may be shared")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", type=Path)
    target.add_argument(
        "--estimate", action="store_true", help="print calls, tokens and cost without calling the judge"
    )


def judge(parser: argparse.ArgumentParser) -> None:
    add_task_arguments(parser)
    parser.add_argument(
        "--pair",
        nargs=2,
        action="append",
        required=True,
        metavar=("A", "B"),
        help="two policies; repeat for several pairs",
    )


def grade(parser: argparse.ArgumentParser) -> None:
    add_task_arguments(parser)
    parser.add_argument("--policy", required=True)


def gold_judge(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", required=True, help="the config's judge section: JSON or FILE.yaml#judge")
    parser.add_argument("--port", type=int, default=8123)
