"""Experiment trackers beside the metrics file, through accelerate's: TensorBoard, Weights & Biases, or none."""

import argparse
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers

from salsa.runtime.errors import UserError
from salsa.runtime.log import log

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

    Their files are in `folder`; on TensorBoard, a run that goes on replaces what was reported after those steps. A
    tracker that fails is left out with a warning: the metrics file has all that it would have shown.
    """
    missing = [name for name in names if name not in map(str, get_available_trackers())]
    if missing:
        raise UserError(f"--report-to {' '.join(missing)}: not installed: pip install {' '.join(missing)}")
    if not names:
        yield lambda metrics: None
        return
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        "tensorboard": {"purge_step": done},
        "wandb": {"id": run_id, "resume": "allow", "name": folder.stem, "dir": folder, "config": dict(settings)},
    }
    mistakes, failures = _failures(names)
    boards: dict[str, Accelerator] = {}

    @contextlib.contextmanager
    def only_warned(name: str) -> Iterator[None]:
        try:
            yield
        except mistakes as error:  # wandb's without a key, which it says
            reason = str(error).splitlines()[0]
            raise UserError(f"--report-to {name}: {reason} Or set WANDB_MODE=offline.") from None
        except failures as error:
            boards.pop(name, None)
            reason = str(error).splitlines()[0]
            log.warning("--report-to %s: it fails (%s): training goes on without it", name, reason)

    for name in names:
        with only_warned(name):
            boards[name] = Accelerator(log_with=name, project_dir=folder)
            boards[name].init_trackers(PROJECT, init_kwargs={name: options[name]})

    def report(metrics: Mapping[str, Any]) -> None:
        figures = {name: figure for name, figure in metrics.items() if figure is not None and name != "step"}
        for name, board in list(boards.items()):
            with only_warned(name):
                board.log(figures, step=metrics["step"])

    try:
        yield report
    finally:
        for name, board in list(boards.items()):
            with only_warned(name):
                for tracker in board.trackers:
                    tracker.finish()


def _failures(names: Sequence[str]) -> tuple[tuple[type[Exception], ...], tuple[type[Exception], ...]]:
    """What the trackers raise of a user's mistake, and what where their disk or server fails."""
    if "wandb" not in names:
        return (), (OSError,)
    import wandb  # an extra

    return (wandb.errors.UsageError,), (OSError, wandb.errors.Error)
