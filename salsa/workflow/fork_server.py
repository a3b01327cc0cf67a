"""Start stages as forks of a process that has imported torch and transformers already.

Importing them takes as long as training a tiny model. So a run of a generated world starts one server for its local
jobs, and their launcher (forked.py) asks it for a fork. The server imports when the first job asks, and ends with the
run, however that ends. A forked stage is like another: the same command, folder, environment, output, signals and exit
status.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import shlex
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from salsa.devices.gpus import gpu_uuids
from salsa.workflow.forked import FORKED, NAME, REFUSED, has_same_user

# Variables that shells change. All others must be the server's, because libraries read some of them on import.
OF_SHELLS = ("_", "SHLVL", "PWD", "OLDPWD")


@dataclass(frozen=True)
class Request:
    """A command that a launcher asks for."""

    words: list[str]  # after `python`
    folder: str
    environment: dict[str, str]
    files: list[int]  # descriptors of stdin, stdout and stderr

    @classmethod
    def receive(cls, connection: socket.socket) -> "Request":
        """Receive what `run_in_fork` sends."""
        _, files, _, _ = socket.recv_fds(connection, 1, 3)
        with connection.makefile(encoding="utf-8") as lines:
            words, folder, environment = json.loads(lines.readline())
        return cls(words, folder, environment, files)


def shared(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a job and the server must share."""
    return {name: value for name, value in environment.items() if name not in OF_SHELLS}


def preload(environment: Mapping[str, str], modules: Sequence[str]) -> None:
    """Import modules in a job's environment."""
    os.environ.clear()
    os.environ.update(environment)
    gc.disable()
    for module in modules:
        importlib.import_module(module)
    gc.freeze()
    gc.enable()


def become(request: Request) -> None:
    """Run the request's command in this process, which ends with it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, file in enumerate(request.files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request.folder)
    os.environ.update(request.environment)
    sys.argv = request.words[1:]
    runpy.run_module(request.words[1], run_name="__main__", alter_sys=True)
    sys.exit()


def keep(connection: socket.socket, request: Request) -> None:
    """Fork a stage and tell the launcher how it ends; if the launcher ends first, end the stage as SIGTERM would.

    This process is a fork of the server, for this stage alone.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    stage = os.fork()
    if stage == 0:
        connection.close()
        become(request)
    for file in request.files:
        os.close(file)
    with contextlib.suppress(OSError):
        connection.sendall(FORKED)
    watched = os.pidfd_open(stage)
    ended, _, _ = select.select([watched, connection.fileno()], [], [])
    if watched not in ended:
        signal.pidfd_send_signal(watched, signal.SIGTERM)
    _, status = os.waitpid(stage, 0)
    with contextlib.suppress(OSError):
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def serve(listener: socket.socket, modules: Sequence[str]) -> None:
    """Answer launchers until stdin ends, which it does with the process that started the server."""
    # Ctrl-C reaches all processes of a terminal. The stages handle it, and the server waits for them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a keeper
    environment: dict[str, str] | None = None
    while True:
        ready, _, _ = select.select([listener.fileno(), sys.stdin.fileno()], [], [])
        if sys.stdin.fileno() in ready:
            return
        connection, _ = listener.accept()
        with connection:
            if not has_same_user(connection):
                continue
            try:
                request = Request.receive(connection)
            except (OSError, ValueError, TypeError):
                continue  # the launcher was killed before it had asked
            if environment is None:
                environment = shared(request.environment)
                preload(request.environment, modules)
            changed = sorted({name for name, _ in environment.items() ^ shared(request.environment).items()})
            command = shlex.join(request.words[1:3])
            print(f"not forked: {command}: other {', '.join(changed)}" if changed else f"forked: {command}", flush=True)
            if changed:
                with contextlib.suppress(OSError):
                    connection.sendall(REFUSED)
            elif os.fork() == 0:
                listener.close()  # or launchers would still find it when the server has ended
                keep(connection, request)
            for file in request.files:
                os.close(file)


def start(log: Path, modules: Sequence[str]) -> "subprocess.Popen[bytes] | None":
    """Start a server for the jobs that this process starts, and return it. It ends with this process.

    `log` has a line for each job that asks. `modules` are imported when the first one does.

    None, and no server, on a machine with GPUs, because a process that has used CUDA must not fork; and outside Linux,
    which alone has sockets without a file and pidfd.
    """
    if sys.platform != "linux" or gpu_uuids():
        return None
    name = f"salsa-{uuid.uuid4().hex}"
    log.parent.mkdir(parents=True, exist_ok=True)
    stdin, _ = os.pipe()  # nobody closes the other end until this process ends
    with socket.socket(socket.AF_UNIX) as listener, log.open("ab") as output:
        listener.bind(f"\0{name}")
        listener.listen(socket.SOMAXCONN)
        command = [sys.executable, "-m", __name__, str(listener.fileno()), *modules]
        server = subprocess.Popen(command, stdin=stdin, stdout=output, stderr=output, pass_fds=[listener.fileno()])
    os.close(stdin)
    os.environ[NAME] = name
    return server


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])
