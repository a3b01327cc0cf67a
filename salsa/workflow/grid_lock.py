"""Lock a results folder so that only one run of a grid uses it at a time.

Snakemake's own lock stays when a run is killed and has to be removed by hand. The kernel releases this one when the
process ends, however it ends. Other machines see it if the file system shares `flock` (NFS 4, Lustre with -o flock,
GPFS); `salsa doctor` tests it on one machine only.
"""

import fcntl
import os
import socket
from pathlib import Path
from typing import TextIO

from salsa.runtime.errors import UserError

_held: dict[Path, TextIO] = {}


def hold(path: Path, grid: str) -> None:
    """Lock a grid until this process ends. A UserError names the holder, or why locking fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: a run has to write there") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise UserError(f"{grid}: another run of this grid is active here ({holder}): wait until it ends") from None
    except OSError as error:
        file.close()
        raise UserError(
            f"{path}: {error.strerror}: this file system does not support locks, and two runs of a grid would damage "
            "each other: use a folder on another file system"
        ) from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    _held[path] = file  # keeps the file open, and with it the lock
