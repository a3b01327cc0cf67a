"""The arguments of `overlap` and `download`. Imports nothing heavy: help and errors come at once."""

import argparse
from pathlib import Path


def overlap(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sets", required=True, help="data sets by name (training_sets.DataSet): JSON or FILE.yaml")
    parser.add_argument("--benchmarks", required=True, help="the config's benchmarks: JSON or FILE.yaml#benchmarks")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True, help="JSON file")


def download(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", required=True)
    parser.add_argument("--sha256", required=True, help="expected hex digest")
    parser.add_argument("--out", type=Path, required=True)
