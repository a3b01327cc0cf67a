"""The arguments of `figures`. Imports nothing heavy: help and errors come at once."""

import argparse

from eval.tables.arguments import add_results_arguments


def of_grid(parser: argparse.ArgumentParser) -> None:
    add_results_arguments(parser)
