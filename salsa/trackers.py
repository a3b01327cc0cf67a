"""Experiment trackers beside the metrics file, through accelerate's: TensorBoard, Weights & Biases, or none."""

import argparse
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers

from salsa.errors import UserError

TRACKERS = ("tensorboard", "wandb")
PROJECT = "salsa"

Report = Callable[[Mapping[str, Any]], None]


def tracker_names(text: str) -> list[str]:
    """The trackers of a list with commas; "none" is no tracker."""
    names = [name for name in text.split(",") if name != "none"]
    for name in names:
        if name not in TRACKERS:
            raise argparse.ArgumentTypeError(f"{name}: name some of {', '.join(TRACKERS)}, or none")
    return names


@contextlib.contextmanager
def trackers(
    names: Sequence[str], folder: Path, run_id: str, settings: Mapping[str, Any], done: int
) -> Iterator[Report]:
    """Yields a function that reports a step's metrics to the trackers named; after `done` steps the run goes on.

    Their files are in `folder`; on TensorBoard, a run that goes on replaces what was reported after those steps.
    """
    missing = [name for name in names if name not in map(str, get_available_trackers())]
    if missing:
        raise UserError(f"--report-to {' '.join(missing)}: not installed: pip install {' '.join(missing)}")
    if not names:
        yield lambda metrics: None
        return
    folder.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(log_with=list(names), project_dir=folder)
    options = {
        "tensorboard": {"purge_step": done},
        "wandb": {"id": run_id, "resume": "allow", "name": folder.stem, "dir": folder, "config": dict(settings)},
    }
    accelerator.init_trackers(PROJECT, init_kwargs={name: options[name] for name in names})

    def report(metrics: Mapping[str, Any]) -> None:
        figures = {name: figure for name, figure in metrics.items() if figure is not None and name != "step"}
        accelerator.log(figures, step=metrics["step"])

    try:
        yield report
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()
