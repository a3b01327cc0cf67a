"""Start of a run of the workflow."""

import contextlib
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from eval.benchmarks import find, pinned_files
from eval.workflow.inputs import Inputs
from eval.workflow.options import Options
from eval.workflow.paths import GridPaths
from eval.workflow.settings_files import SettingsFiles
from salsa.config.config import Config, parse_config, with_local_copies
from salsa.runtime.errors import UserError, disk_fault
from salsa.workflow import fork_server
from salsa.workflow.grid_lock import hold

DEFAULT_RATE = (100, 1)  # jobs, seconds
PRELOADED = (  # modules of the stages that import torch, but for a few jobs of a grid
    "salsa.alignment.align",
    "salsa.supervised.dpo",
    "salsa.supervised.reward",
    "salsa.supervised.sft",
    "eval.generation.generate",
    "eval.scoring.alpha",
    "eval.scoring.frontier",
    "eval.scoring.score",
)
GPU = "h100"  # in the plan; measured durations replace it as soon as jobs finish


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """End Snakemake with one line instead of a traceback."""
    try:
        yield
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if (line := disk_fault(error)) is None:
            raise
        sys.exit(f"error: {line}")


def load_grid(
    config: Mapping[str, Any], files: Iterable[object], workflow_folder: str
) -> tuple[GridPaths, Inputs, Options, SettingsFiles]:
    """Check the config that Snakemake merged from `files`, and return what the rules take from it."""
    with one_line_errors():
        written = parse_config(config, " + ".join(map(str, files)))
        local, to_fetch = with_local_copies(written)
        for benchmark in local.benchmarks.values():
            find(benchmark.kind)
            pinned_files(benchmark, missing_is_fine=True)
        paths = GridPaths(local, workflow_folder)
        return paths, Inputs(paths), Options(paths, to_fetch), SettingsFiles(local, written, paths.settings)


def lift_default_rate(scheduler: Any) -> None:
    """Lift Snakemake's default limit of 100 new jobs per second; a limit of your own stays.

    While there is one, each finished job makes Snakemake 9.27 look at all open jobs once more in every second
    (snakemake/snakemake#3744): after 600 jobs that takes a quarter of a core.
    """
    limiter = getattr(scheduler, "job_rate_limiter", None)
    if limiter and (limiter.max_jobs, limiter.timespan) == DEFAULT_RATE:
        scheduler.job_rate_limiter = None


def start_fork_server(paths: GridPaths) -> None:
    """Let the jobs that this process starts begin as forks."""
    fork_server.start(Path(paths.logs) / "fork_server.log", PRELOADED)


def lock_grid(paths: GridPaths) -> None:
    """Lock the grid against other runs until this process ends."""
    hold(Path(f".snakemake/{paths.config.grid}.lock"), paths.results)


def offer_plan(config: Config, rules: Iterable[Any]) -> None:
    """Give the logger plugin a way to compute the plan, which takes a second and is for terminals only."""
    device = GPU if any("gpu" in rule.resources for rule in rules) else "cpu"

    def planned_seconds() -> dict[str, float]:
        from eval.planning.schedule import job_seconds

        return job_seconds(config, device)

    snakemake_log = logging.getLogger("snakemake.logging")
    snakemake_log.info(f"Grid {config.grid}", extra={"planned_seconds": planned_seconds})


def begin(paths: GridPaths, settings: SettingsFiles, rules: Iterable[Any]) -> None:
    """Lock the grid, write the stages' settings files, and offer the plan to the display."""
    with one_line_errors():
        lock_grid(paths)
        settings.write()
    offer_plan(paths.config, rules)
