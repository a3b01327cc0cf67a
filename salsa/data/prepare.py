"""Stage `data`: tokenize all data sets of a model before a GPU has to wait for it.

Writes for each set how many rows it has and how many were left out, by reason (see token_cache.py).
"""

import argparse
import json
from pathlib import Path

from salsa.checkpoints.loading import load_tokenizer
from salsa.data.rows import source_name
from salsa.data.token_cache import prepare
from salsa.data.training_sets import load_sets
from salsa.runtime.outputs import output_file
from salsa.runtime.provenance import Run


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
