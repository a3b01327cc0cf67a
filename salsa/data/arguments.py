"""The arguments of `fetch` and `data`. Imports nothing heavy: help and errors come at once."""

import argparse
from pathlib import Path

from salsa.data.training_sets import PREPARED


def fetch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--hub", required=True, metavar="ID", help="the data set's id")
    parser.add_argument("--revision", required=True, help="a commit: 40 hex digits")
    parser.add_argument("--split", required=True)
    parser.add_argument("--out", type=Path, required=True, help="JSONL file")


def prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", type=Path, required=True, help="base checkpoint, for its tokenizer")
    parser.add_argument("--sets", required=True, help="data sets by name (training_sets.DataSet): JSON or FILE.yaml")
    parser.add_argument("--prepared", type=Path, default=PREPARED, help=f"cache of token ids (default {PREPARED})")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
