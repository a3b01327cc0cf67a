"""The arguments of `world`. Imports nothing heavy: help and errors come at once."""

import argparse
from pathlib import Path


def make(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", required=True, help="JSON, or FILE.yaml#world")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
