"""The arguments of `salsa report`. Imports nothing heavy: help and errors come at once."""

import argparse
from pathlib import Path

DEFAULT = Path("config/mini.yaml")


def rebuild(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, nargs="+", action="extend", metavar="FILE", help=f"the grid (default: {DEFAULT})"
    )
