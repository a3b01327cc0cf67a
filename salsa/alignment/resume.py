"""Save and load the state of an unfinished run, so that it resumes as if it had never stopped.

FOLDER/step-000012/   weights, optimisers and schedules after 12 steps (torch.distributed.checkpoint), and metrics.jsonl
FOLDER/metrics.jsonl  one line per step so far

Random numbers and the position in the data follow from the seeds and the step, so they need no state.
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
from salsa.runtime.outputs import output_folder

NAME = re.compile(r"step-(\d{6})")
METRICS = "metrics.jsonl"
UNREADABLE = (CheckpointException, OSError, EOFError, ValueError, RuntimeError)


class Checkpoints:
    """Saved states of a run: one every `minutes`, of which the last `keep` stay. A run resumes from the newest."""

    def __init__(self, folder: Path, minutes: float, keep: int):
        self.folder, self.interval, self.keep = folder, 60 * minutes, keep
        self.last = time.monotonic()
        processes.run_on_main(lambda: folder.mkdir(parents=True, exist_ok=True))

    def steps(self) -> list[int]:
        """Step numbers of the saved states, ascending."""
        matches = (NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def newest(self) -> int:
        """Step number of the newest state; 0 if there is none."""
        return max(self.steps(), default=0)

    def path(self, step: int) -> Path:
        """Folder of the state after `step` steps."""
        return self.folder / f"step-{step:06d}"

    def due(self) -> bool:
        """Whether it is time to save. The main process decides, because clocks differ."""
        return processes.run_on_main(lambda: time.monotonic() - self.last >= self.interval)

    def save(self, step: int, state: dict[str, Any], history: Sequence[dict[str, Any]]) -> None:
        """Save the state after `step` steps, then remove all but the last `keep`."""
        try:
            with contextlib.ExitStack() as writing, without_single_process_warning():
                folder = processes.run_on_main(lambda: writing.enter_context(output_folder(self.path(step))))
                dcp.save(state, checkpoint_id=folder)
                processes.run_on_main(lambda: write_jsonl(folder / METRICS, history))
                processes.run_on_main(writing.close)
        except (CheckpointException, OSError) as error:
            raise UserError(
                f"{self.path(step)}: cannot save it ({first_line(error)}): make room and rerun; the run resumes from "
                f"{self.path(self.newest()).name if self.newest() else 'the beginning'}"
            ) from None
        processes.run_on_main(self.prune)
        self.last = time.monotonic()

    def prune(self) -> None:
        """Remove all but the last `keep` states."""
        for old in self.steps()[: -self.keep]:
            # Renamed first, so that a half-removed state is never taken for a complete one.
            renamed = self.path(old).rename(self.folder / f".step-{old:06d}.old")
            shutil.rmtree(renamed)

    def clean_steps(self) -> list[int]:
        """Remove leftovers of an interrupted run; returns the step numbers of the saved states."""
        for leftover in self.folder.glob(".step-*"):
            shutil.rmtree(leftover)
        return self.steps()

    def load(self, state: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        """Load the newest state and the metrics up to it; (None, []) if there is none.

        `state` returns the tensors to load into. It is called only if there is something to load: a new optimiser has
        to take an empty step to create its moments, and that step would count in Adam's bias correction.
        """
        saved = processes.run_on_main(self.clean_steps)
        loaded, history = None, []
        if saved:
            loaded = state()
            folder = self.path(saved[-1])
            try:
                with without_single_process_warning():
                    dcp.load(loaded, checkpoint_id=folder)
            except UNREADABLE as error:
                raise UserError(
                    f"{folder}: cannot read it ({first_line(error)}): remove it to resume from "
                    f"{self.path(saved[-2]).name if len(saved) > 1 else 'the beginning'}"
                ) from None
            history = processes.run_on_main(lambda: read_jsonl(folder / METRICS))
        processes.run_on_main(lambda: write_jsonl(self.folder / METRICS, history))
        return loaded, history

    def append(self, metrics: dict[str, Any]) -> None:
        """Append a step to the metrics file."""
        processes.run_on_main(lambda: write_jsonl(self.folder / METRICS, [metrics], "a"))


def first_line(error: BaseException) -> str:
    """First line of an error's cause; a CheckpointException lists a stack for every process."""
    if isinstance(error, CheckpointException) and error.failures:
        [(cause, _), *_] = error.failures.values()
        return first_line(cause)
    return str(error).partition("\n")[0] or type(error).__name__


@contextlib.contextmanager
def without_single_process_warning() -> Iterator[None]:
    """Silence torch's warning about saving or loading with a single process, which is intended here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield
