"""Experiment trackers (TensorBoard, Weights & Biases) through accelerate. The metrics file is written in any case."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers

from salsa.runtime.errors import UserError
from salsa.runtime.log import log

PROJECT = "salsa"

Report = Callable[[Mapping[str, Any]], None]


@contextlib.contextmanager
def trackers(
    names: Sequence[str], folder: Path, run_id: str, settings: Mapping[str, Any], done: int
) -> Iterator[Report]:
    """Yields a function that sends one step's metrics to the named trackers.

    The run starts, or resumes, after `done` steps. On TensorBoard a resumed run replaces the points after that step.
    A tracker that fails is dropped with a warning; the metrics file holds everything it would have shown.
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
        except mistakes as error:  # for example wandb without an API key
            reason = str(error).splitlines()[0]
            raise UserError(f"--report-to {name}: {reason} Or set WANDB_MODE=offline.") from None
        except failures as error:
            boards.pop(name, None)
            reason = str(error).splitlines()[0]
            log.warning("--report-to %s failed (%s); training continues without it", name, reason)

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
    """Exception types of the trackers: user mistakes, and failures of disk or server."""
    if "wandb" not in names:
        return (), (OSError,)
    import wandb  # installed with the extra `trackers`

    return (wandb.errors.UsageError,), (OSError, wandb.errors.Error)
