"""Arguments of the commands that compute intervals. Imports nothing heavy: help and errors come at once."""

import argparse

from salsa.config.sections import Calibration, Tables
from salsa.runtime.argument_types import count, share


def add_confidence_argument(parser: argparse.ArgumentParser) -> None:
    """Add --confidence."""
    default = Tables.model_fields["confidence"].default
    parser.add_argument("--confidence", type=share, default=default, help="level of intervals (default 0.95)")


def add_resampling_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --confidence, --resamples and --seed."""
    add_confidence_argument(parser)
    default = Calibration.model_fields["resamples"].default
    parser.add_argument("--resamples", type=count, default=default, help="bootstrap resamples of rank correlations")
    parser.add_argument("--seed", type=int, default=1, help="seed of the bootstrap")
