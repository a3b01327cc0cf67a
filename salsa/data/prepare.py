"""Stage `data`: tokenize all data sets of a model before a GPU has to wait for it.

Writes for each set how many rows it has and how many were left out, by reason (see token_cache.py).
"""

import argparse
import json
from pathlib import Path

from salsa.checkpoints.loading import load_tokenizer
from salsa.data.rows import source_name
from salsa.data.token_cache import prepare
from salsa.data.training_sets import PREPARED, load_sets
from salsa.runtime.outputs import output_file
from salsa.runtime.provenance import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", type=Path, required=True, help="base checkpoint, for its tokenizer")
    parser.add_argument("--sets", required=True, help="data sets by name (training_sets.DataSet): JSON or FILE.yaml")
    parser.add_argument("--prepared", type=Path, default=PREPARED, help=f"cache of token ids (default {PREPARED})")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")


def run(arguments: argparse.Namespace) -> None:
    sets = load_sets(arguments.sets)
    inputs = {name: Path(dataset.source.path) for name, dataset in sets.items() if dataset.source.path is not None}
    settings = {name: dataset.model_dump(mode="json", exclude_none=True) for name, dataset in sets.items()}
    record = Run("data", settings, {"base": arguments.base, **inputs}, {})
    tokenizer = load_tokenizer(arguments.base)
    card = {}
    for name, dataset in sets.items():
        counts = prepare(name, dataset, tokenizer, arguments.prepared).counts
        about = {"kind": dataset.kind, "source": source_name(dataset.source), "limit": dataset.max_length}
        card[name] = {**about, **counts}
    with output_file(arguments.out, record) as path:
        path.write_text(json.dumps(card, indent=2) + "\n")
