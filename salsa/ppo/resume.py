"""The states of an unfinished run on disk: what is needed to go on as if nothing had happened.

FOLDER/step-000012/   weights, optimisers and schedules after 12 steps (torch.distributed.checkpoint), and metrics.jsonl
FOLDER/metrics.jsonl  a line for each step so far, written as the run goes

Random numbers and the place in the data follow from the seeds and the number of steps: they need no state.
"""

import contextlib
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

from salsa.devices import processes
from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import read_jsonl, write_jsonl
from salsa.runtime.log import log
from salsa.runtime.outputs import output_folder

NAME = re.compile(r"step-(\d{6})")
METRICS = "metrics.jsonl"
UNREADABLE = (CheckpointException, OSError, EOFError, ValueError, RuntimeError)


class Checkpoints:
    """Saves a run's state every so many minutes and keeps the last few; the newest is where the run goes on."""

    def __init__(self, folder: Path, minutes: float, keep: int):
        self.folder, self.interval, self.keep = folder, 60 * minutes, keep
        self.last = time.monotonic()
        processes.on_main(lambda: folder.mkdir(parents=True, exist_ok=True))

    def steps(self) -> list[int]:
        """The steps after which a state was saved, the oldest first."""
        found = (NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def newest(self) -> int:
        """The number of steps that the newest holds, 0 without any."""
        return max(self.steps(), default=0)

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}"

    def due(self) -> bool:
        """Whether it is time to save; the processes' clocks may differ."""
        return processes.on_main(lambda: time.monotonic() - self.last >= self.interval)

    def save(self, step: int, state: dict[str, Any], history: Sequence[dict[str, Any]]) -> None:
        """The state after `step` steps; then those before the last `keep` are removed."""
        try:
            with contextlib.ExitStack() as writing, alone():
                folder = processes.on_main(lambda: writing.enter_context(output_folder(self.path(step))))
                dcp.save(state, checkpoint_id=folder)
                processes.on_main(lambda: write_jsonl(folder / METRICS, history))
                processes.on_main(writing.close)
        except (CheckpointException, OSError) as error:
            raise UserError(
                f"{self.path(step)}: cannot be saved ({first_line(error)}): make room and run it again; it goes on "
                f"from {self.path(self.newest()).name if self.newest() else 'the beginning'}"
            ) from None
        processes.on_main(self.prune)
        self.last = time.monotonic()

    def prune(self) -> None:
        """Removes all but the last `keep`."""
        for old in self.steps()[: -self.keep]:
            # Renamed first: what is half removed must not look whole.
            going = self.path(old).rename(self.folder / f".step-{old:06d}.old")
            shutil.rmtree(going)

    def found(self) -> list[int]:
        """The steps with a state, and nothing else in the folder that an interruption may have left."""
        for leftover in self.folder.glob(".step-*"):
            shutil.rmtree(leftover)
        return self.steps()

    def load(self, state: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        """The newest state that was saved, and the metrics of its steps; None without any.

        `state` gives the tensors to read it into. It is asked only where there is something to read: to have moments at
        all, an optimiser that is new makes an empty step for it, and that step would count in Adam's bias correction.
        """
        saved = processes.on_main(self.found)
        found, history = None, []
        if saved:
            found = state()
            folder = self.path(saved[-1])
            try:
                with alone():
                    dcp.load(found, checkpoint_id=folder)
            except UNREADABLE as error:
                raise UserError(
                    f"{folder}: cannot be read ({first_line(error)}): remove it, to go on from "
                    f"{self.path(saved[-2]).name if len(saved) > 1 else 'the beginning'}"
                ) from None
            history = processes.on_main(lambda: read_jsonl(folder / METRICS))
            log.info("ppo: going on after %d steps, from %s", saved[-1], folder)
        processes.on_main(lambda: write_jsonl(self.folder / METRICS, history))
        return found, history

    def append(self, metrics: dict[str, Any]) -> None:
        """A step's line in the metrics file of the run so far."""
        processes.on_main(lambda: write_jsonl(self.folder / METRICS, [metrics], "a"))


def first_line(error: BaseException) -> str:
    """What is wrong, of an error that may tell of every process and its stack."""
    if isinstance(error, CheckpointException) and error.failures:
        [(cause, _), *_] = error.failures.values()
        return first_line(cause)
    return str(error).partition("\n")[0] or type(error).__name__


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Without the notice that a single process saves or loads by itself, which is as it should be."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield
