"""Command `report`: rebuild tables, figures and report from stored results, without a model, a judge or Snakemake."""

import argparse
from pathlib import Path

from eval.commands.arguments import DEFAULT
from eval.figures import of_grid as figures
from eval.grid.layout import grid_of, measured_files
from eval.report import page, terminal
from eval.tables import of_grid as tables
from eval.workflow.options import Options
from eval.workflow.paths import GridPaths
from eval.workflow.settings_files import SettingsFiles
from eval.workflow.start import lock_grid
from salsa.config.config import load_config, with_local_copies
from salsa.runtime.command import parse
from salsa.runtime.errors import UserError
from salsa.runtime.provenance import CODE

LISTED = 3


def run(arguments: argparse.Namespace) -> None:
    written = load_config(*(arguments.config or [DEFAULT]))
    config, to_fetch = with_local_copies(written)
    paths = GridPaths(config, str(CODE))
    settings, options = SettingsFiles(config, written, paths.settings), Options(paths, to_fetch)
    results = Path(paths.results)
    missing = [path for path in measured_files(results, grid_of(config)).values() if not path.exists()]
    if missing:
        more = f" and {len(missing) - LISTED} more" if len(missing) > LISTED else ""
        raise UserError(f"{', '.join(map(str, missing[:LISTED]))}{more}: missing; make them with salsa run")
    lock_grid(paths)
    settings.write()
    common = ["--results", str(results), "--settings", settings.path("tables")]
    extra = [*options.calibration(), *options.assumptions(settings.path("assumptions"))]
    for module, words in (
        (tables, [*common, "--out", str(results / "tables")]),
        (figures, [*common, "--out", str(results / "figures")]),
        (page, [*common, *extra, "--ledger", paths.ledger, "--out", str(results / "report.html")]),
        (terminal, ["--results", str(results), "--below-floor", config.tables.below_floor]),
    ):
        module.run(parse(module.__name__, words))
