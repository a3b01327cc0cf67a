"""Stage `data`: makes token ids of everything that a model trains on, before a GPU waits for it, and counts.

The file says of each set how many rows it has and how many cannot be used, by reason (salsa/data/token_cache.py).
"""

import argparse
import json
from pathlib import Path

from salsa.checkpoints.loading import load_tokenizer
from salsa.data.rows import source_name
from salsa.data.token_cache import prepare
from salsa.data.training_sets import PREPARED, parse_sets
from salsa.runtime.outputs import output_file
from salsa.runtime.provenance import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", type=Path, required=True, help="base checkpoint, for its tokenizer")
    parser.add_argument("--set", action="append", required=True, metavar="NAME=JSON", help="as training_sets.DataSet")
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
