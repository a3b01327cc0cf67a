"""What is printed of a job that failed: its command and the end of its log."""

import os
import re
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from eval.progress.run_state import Job, clock
from salsa.runtime.texts import visible

LINES = 15  # of a log
BYTES = 32768  # read from its end
# What Snakemake says of a shell command that failed.
COMMAND_FAILED = re.compile(r"CalledProcessError in file .*?\nCommand '(.*)' (returned .*|died .*)\.\s*$", re.DOTALL)
KILLED = 128 + signal.SIGKILL  # a shell's exit status
OWN_WORDS = re.compile("^error: |rerun the same command")
MARKERS = re.compile(r"\s*[~^]+\s*")  # under a line of a traceback


class CommandEnd(NamedTuple):
    """How a job's shell command ended."""

    command: str
    how: str


def read_end(text: str) -> CommandEnd | None:
    """Read Snakemake's message on a shell command that failed; None if the message is another."""
    if (match := COMMAND_FAILED.search(text)) is None:
        return None
    how = match[2].removeprefix("returned non-zero ")
    if how == f"exit status {KILLED}":
        how += ", which is that of a killed process; the system kills one that takes too much memory"
    return CommandEnd(match[1].strip(), how)


def last_lines(path: str) -> list[str]:
    """The last lines of a log, and before them what the stage itself said, if a launcher's traceback hides it.

    Of a large log only the end is read. An OSError if it cannot be read.
    """
    with Path(path).open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - BYTES, 0))
        text = file.read().decode(errors="replace")
    lines = [line for line in visible(text.replace("\r", "\n")).rstrip().splitlines() if not MARKERS.fullmatch(line)]
    hidden = [line for line in lines[:-LINES] if OWN_WORDS.search(line)]
    return [*(part for line in hidden[-1:] for part in (line, "…")), *lines[-LINES:]]


def failure(job: Job, now: float, how: str, details: Mapping[str, object]) -> Iterator[str]:
    """Lines that describe a failed job.

    `how` says how its command ended, or is empty. `details` is what the executor adds, such as the job's id on the
    cluster.
    """
    yield f"FAILED after {clock(now - job.started)}: {visible(job.title)}{how and f' ({how})'}"
    if job.command:
        yield f"  command: {visible(' '.join(job.command.split()))}"
    for name, value in details.items():
        yield f"  {name}: {visible(str(value))}"
    for path in job.logs:
        try:
            lines = last_lines(path)
        except OSError as error:
            yield f"  log: {path} cannot be read: {error.strerror}"
            continue
        yield f"  log: {path}{'' if lines else ' is empty'}"
        yield from (f"    {line}" for line in lines)


def advice(failed: int, done: int, total: int) -> str:
    """What to do after failures."""
    return (
        f"{failed} of {total} jobs failed, {done} are done. Rerun the same command to go on from there. "
        "docs/troubleshooting.md has causes and remedies."
    )
