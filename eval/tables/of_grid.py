"""Stage `tables`: write all tables of a grid from stored judgments, grades, scores and metrics.

A table is declared in claimed.py, judged.py or measured.py. To add one, declare it there and list it here.
"""

import argparse

from eval.grid.layout import Grid, measured_files
from eval.grid.results import GridResults
from eval.tables import at_equal_kl, claimed, judged, measured
from eval.tables.table import Table
from salsa.runtime.outputs import output_folder
from salsa.runtime.provenance import Run
from salsa.runtime.settings import load_settings

TABLES = [  # in the report's order
    claimed.CLAIMS,
    judged.HEADLINE,
    judged.WIN_RATES,
    measured.IMPROVEMENTS,
    at_equal_kl.EQUAL_KL,
    at_equal_kl.FRONTIER,
    measured.SCORES,
    judged.GRADES,
    measured.SOUP,
    measured.REWARD_MODEL,
    measured.TRAINING,
    measured.DATA,
    measured.OVERLAP,
    measured.RUNS,
]


def tables_of(grid: Grid) -> list[Table]:
    """The tables of a grid."""
    return [table for table in TABLES if table.is_made(grid)]


def load_results(arguments: argparse.Namespace, stage: str) -> tuple[GridResults, Run]:
    """The results that the arguments name, and the provenance of a stage that uses them."""
    grid = load_settings(arguments.settings, Grid)
    inputs = measured_files(arguments.results, grid)
    record = Run(stage, grid.model_dump(mode="json"), inputs, {})
    return GridResults(arguments.results, grid), record


def run(arguments: argparse.Namespace) -> None:
    results, record = load_results(arguments, "tables")
    with output_folder(arguments.out, record) as folder:
        for table in tables_of(results.grid):
            table.write(folder, results)
        record.extra = {
            "made_with": {
                name: {value: len(runs) for value, runs in values.items()} for name, values in results.made_with.items()
            }
        }
