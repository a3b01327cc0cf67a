"""Runs a command on GPUs that no other command run like this has: `python -m salsa.devices.gpus COUNT COMMAND …`.

Snakemake's local executor counts GPUs, and says to no job which are its own. Each GPU has a lock here, which the
command inherits: the kernel lets go of it when the command's process ends, however it ends. The GPUs given out are
those of CUDA_VISIBLE_DEVICES, or all.
"""

import contextlib
import fcntl
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from salsa.runtime.errors import UserError

VISIBLE = "CUDA_VISIBLE_DEVICES"
SECONDS = 1.0  # between looks at GPUs that are all taken


def known_gpus() -> dict[str, str]:
    """UUIDs of the machine's GPUs by their indices; none without a driver."""
    command = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(line.split(", ", 1) for line in said.splitlines())


def pool() -> list[str]:
    """The GPUs to give out, by what is the same for every process of the machine."""
    known, visible = known_gpus(), os.environ.get(VISIBLE)
    if visible is None:
        return list(known.values())
    return [known.get(name, name) for name in visible.split(",") if name]


def lock_file(name: str) -> int:
    """A descriptor of the lock of that name, which all users of the machine share."""
    path = Path(tempfile.gettempdir()) / f"salsa-gpu-{name.replace('/', '-')}.lock"
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o644))
    return os.open(path, os.O_RDONLY)


def taken(descriptor: int, wait: bool = False) -> bool:
    """Whether the lock is this process's now."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """While nobody else takes GPUs: of two that want two of three, one would wait for the other for ever."""
    descriptor = lock_file("all")
    try:
        taken(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)


def take(count: int, gpus: Sequence[str]) -> list[str] | None:
    """So many of the GPUs, whose locks this process holds from now on; None while there are fewer."""
    with alone():
        held: dict[str, int] = {}
        for gpu in gpus:
            descriptor = lock_file(gpu)
            if len(held) < count and taken(descriptor):
                held[gpu] = descriptor
            else:
                os.close(descriptor)
        if len(held) < count:
            for descriptor in held.values():
                os.close(descriptor)
            return None
    for descriptor in held.values():
        os.set_inheritable(descriptor, True)
    return list(held)


def main(arguments: Sequence[str]) -> None:
    """Waits until there are enough, then becomes the command."""
    count, *command = arguments
    gpus = pool()
    if not (count.isdecimal() and 0 < int(count) <= len(gpus)):
        where = f"{VISIBLE} names {len(gpus)}" if VISIBLE in os.environ else f"nvidia-smi shows {len(gpus)}"
        raise UserError(f"{count} GPUs are wanted, {where}: correct the profile's gpu and launcher, or {VISIBLE}")
    while (mine := take(int(count), gpus)) is None:
        time.sleep(SECONDS)
    os.environ[VISIBLE] = ",".join(mine)
    os.execvp(command[0], command)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python -m salsa.devices.gpus COUNT COMMAND …")
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {sys.argv[2]}: cannot run it: {error.strerror}")
