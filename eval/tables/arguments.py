"""The arguments of `tables` and `table`. Imports nothing heavy: help and errors come at once."""

import argparse
from pathlib import Path

from eval.statistics.arguments import add_confidence_argument


def add_results_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the stages that read a whole grid's results."""
    parser.add_argument("--results", type=Path, required=True, help="the grid's results folder")
    parser.add_argument("--settings", required=True, help="a Grid (eval/grid/layout.py): JSON or FILE.yaml")
    parser.add_argument("--out", type=Path, required=True)


def of_grid(parser: argparse.ArgumentParser) -> None:
    add_results_arguments(parser)


def of_ledger(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ledger", type=Path, required=True, help="folder written by judge, grade or import")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    add_confidence_argument(parser)
