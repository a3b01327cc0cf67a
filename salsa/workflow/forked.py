"""The launcher `python -m salsa.workflow.forked -m MODULE …`: like `python -m MODULE …`, but it starts faster.

It asks the run's fork server for the process (fork_server.py). Without a server it becomes python itself.
"""

import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

NAME = "SALSA_FORK_SERVER"  # the variable that tells jobs the server's abstract socket
FORKED, REFUSED = b"forked\n", b"start it yourself\n"


def has_same_user(connection: socket.socket) -> bool:
    """Whether the other side belongs to this user. Names of abstract sockets are public, and a job has keys."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return struct.unpack("3i", credentials)[1] == os.getuid()


def run_in_fork(name: str, words: Sequence[str]) -> int | None:
    """Let the server of this name run `python WORDS`, and wait for its exit status: negative if a signal ended it.

    None if there is no such server, or it does not run this.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(f"\0{name}")
            if not has_same_user(connection):
                return None
            socket.send_fds(connection, [b"\n"], [0, 1, 2])
            connection.sendall(json.dumps([words, str(Path.cwd()), dict(os.environ)]).encode() + b"\n")
            answers = connection.makefile("rb")
            if answers.readline() != FORKED:
                return None
        except OSError:
            return None
        status = answers.readline()
    if not status:
        print("error: the process that waits for this stage was killed: rerun the same command", file=sys.stderr)
        return 1
    return int(status)


def main(words: Sequence[str]) -> int:
    """Run `python WORDS`; returns its exit status, or ends by the signal that ended it."""
    # Ctrl-C reaches the stage, too, which ends in its own way. This process ends with it.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    status = run_in_fork(os.environ[NAME], words) if NAME in os.environ else None
    signal.signal(signal.SIGINT, before)
    if status is None:
        os.execv(sys.executable, [sys.executable, *words])
    if status < 0:
        if -status != signal.SIGKILL:  # which has no handler
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
