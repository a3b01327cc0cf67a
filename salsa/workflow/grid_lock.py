"""One run of a grid at a time in a results folder.

Snakemake's own lock survives a run that was killed, and somebody has to remove it. The kernel releases this lock when
its process ends, however it ends. Another machine sees it where the file system carries `flock` between machines (NFS
4, Lustre with -o flock, GPFS); `salsa doctor` tries it on one machine and cannot tell.
"""

import fcntl
import os
import socket
from pathlib import Path
from typing import TextIO

from salsa.runtime.errors import UserError

_held: dict[Path, TextIO] = {}


def hold(path: Path, grid: str) -> None:
    """Locks a grid until this process ends; a UserError names who holds it, or why it cannot be locked.

    The file stays open in this module: the kernel releases the lock when nothing refers to it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: a run needs to write there") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise UserError(f"{grid}: another run of this grid is at work here ({holder}): wait until it ends") from None
    except OSError as error:
        file.close()
        raise UserError(
            f"{path}: {error.strerror}: this file system has no locks, and two runs of a grid would break each other: "
            "run in a folder on another one"
        ) from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    _held[path] = file
