"""Stage `warp`: the policy of WARP after its last round, and one table of metrics of all its runs.

The policy is the spherical average of the last round's runs. A row of metrics is the mean over the runs of a round at
one step; steps and episodes count on from round to round.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import read_jsonl, write_jsonl
from salsa.runtime.outputs import output_file
from salsa.soups import soup

Row = dict[str, Any]


def mean_row(rows: Sequence[Row]) -> Row:
    """The mean of each figure over the rows; None where one has none."""
    return {
        key: None if any(row[key] is None for row in rows) else sum(row[key] for row in rows) / len(rows)
        for key in rows[0]
    }


def joined(rounds: Sequence[Sequence[Sequence[Row]]]) -> list[Row]:
    """The metrics of all rounds, each a list of its runs' metrics, as those of one run."""
    rows: list[Row] = []
    episodes = 0
    for runs in rounds:
        for row in zip(*runs, strict=True):
            counts = {"step": len(rows), "episodes": episodes + sum(part["episodes"] for part in row)}
            rows.append(mean_row(row) | counts)
        episodes = rows[-1]["episodes"]
    return rows


def run(arguments: argparse.Namespace) -> None:
    files: list[Path] = arguments.metrics_of
    if len(files) % arguments.runs:
        raise UserError(f"--metrics-of: {len(files)} files are not whole rounds of {arguments.runs} runs: name all")
    metrics = [read_jsonl(file) for file in files]
    rounds = [metrics[begin : begin + arguments.runs] for begin in range(0, len(files), arguments.runs)]
    rows = joined(rounds)
    soup.run(arguments)
    with output_file(arguments.metrics) as path:
        write_jsonl(path, rows)
