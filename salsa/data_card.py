"""Stage `data`: makes token ids of everything that a model trains on, before a GPU waits for it, and counts.

The file says of each set how many rows it has and how many cannot be used, by reason (salsa/prepared.py).
"""

import argparse
import json
from pathlib import Path

from salsa.checkpoints import load_tokenizer
from salsa.data import source_name
from salsa.data_sets import PREPARED, parse_sets
from salsa.prepared import prepare
from salsa.stage import Run, output_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", type=Path, required=True, help="base checkpoint, for its tokenizer")
    parser.add_argument("--set", action="append", required=True, metavar="NAME=JSON", help="what data_sets.py calls so")
    parser.add_argument("--prepared", type=Path, default=PREPARED, help=f"cache of token ids (default {PREPARED})")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")


def run(arguments: argparse.Namespace) -> None:
    sets = parse_sets(arguments.set)
    inputs = {name: Path(wanted.source.path) for name, wanted in sets.items() if wanted.source.path is not None}
    settings = {name: wanted.model_dump(mode="json", exclude_none=True) for name, wanted in sets.items()}
    record = Run("data", settings, {"base": arguments.base, **inputs}, {})
    tokenizer = load_tokenizer(arguments.base)
    card = {}
    for name, wanted in sets.items():
        counts = prepare(name, wanted, tokenizer, arguments.prepared).counts
        card[name] = {"kind": wanted.kind, "source": source_name(wanted.source), "limit": wanted.max_length, **counts}
    with output_file(arguments.out, record) as path:
        path.write_text(json.dumps(card, indent=2) + "\n")
