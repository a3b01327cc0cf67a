"""Run a command on free GPUs: `python -m salsa.devices.gpus COUNT COMMAND …`.

Snakemake's local executor counts GPUs but does not tell a job which ones to use. Here each GPU has a lock file that
the command inherits; the kernel releases it when the command ends, however it ends. GPUs are taken from
CUDA_VISIBLE_DEVICES, or from all of the machine.
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
POLL_SECONDS = 1.0


def gpu_uuids() -> dict[str, str]:
    """UUIDs of the machine's GPUs by index; empty without a driver."""
    command = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(line.split(", ", 1) for line in output.splitlines())


def pool() -> list[str]:
    """UUIDs of the GPUs that may be used."""
    uuids, visible = gpu_uuids(), os.environ.get(VISIBLE)
    if visible is None:
        return list(uuids.values())
    return [uuids.get(name, name) for name in visible.split(",") if name]


def lock_file(name: str) -> int:
    """Open the lock file of a GPU; all users of the machine share it."""
    path = Path(tempfile.gettempdir()) / f"salsa-gpu-{name.replace('/', '-')}.lock"
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o644))
    return os.open(path, os.O_RDONLY)


def acquire(descriptor: int, wait: bool = False) -> bool:
    """Try to take the lock; returns whether this process holds it now."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def exclusive() -> Iterator[None]:
    """Let only one process take GPUs at a time. Otherwise two jobs could each hold half of what they need, forever."""
    descriptor = lock_file("all")
    try:
        acquire(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)


def take(count: int, gpus: Sequence[str]) -> list[str] | None:
    """Lock `count` of the GPUs and return their UUIDs; None if fewer are free."""
    with exclusive():
        held: dict[str, int] = {}
        for gpu in gpus:
            descriptor = lock_file(gpu)
            if len(held) < count and acquire(descriptor):
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
    """Wait for enough free GPUs, then replace this process by the command."""
    count, *command = arguments
    gpus = pool()
    if not (count.isdecimal() and 0 < int(count) <= len(gpus)):
        where = f"{VISIBLE} names {len(gpus)}" if VISIBLE in os.environ else f"nvidia-smi shows {len(gpus)}"
        raise UserError(f"{count} GPUs requested, {where}: correct the profile's gpu and launcher, or {VISIBLE}")
    while (uuids := take(int(count), gpus)) is None:
        time.sleep(POLL_SECONDS)
    os.environ[VISIBLE] = ",".join(uuids)
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
