"""Run stages in one or several processes, as accelerate's launcher starts them.

The processes are forks of one that has imported torch and the stages: imports would take most of these tests' time.
"""

import contextlib
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from tests.salsa.launched_process import run

PROFILES = Path(__file__).parents[2] / "profiles/accelerate"
PROCESSES = 2
forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload([run.__module__])


@dataclass(frozen=True)
class Launched:
    """A process, and the file that its stderr goes to."""

    process: BaseProcess
    output: Path

    @property
    def said(self) -> str:
        return self.output.read_text()

    def signal(self, number: signal.Signals) -> None:
        assert self.process.pid
        os.kill(self.process.pid, number)

    def wait(self) -> int | None:
        """Wait until the process ends; returns its exit status: negative if a signal ended it."""
        self.process.join(timeout=120)
        return self.process.exitcode


def launched_by(profile: str) -> dict[str, str]:
    """The environment that `accelerate launch --config_file PROFILE` gives its processes."""
    command = ["--config_file", str(PROFILES / profile), "--num_processes", str(PROCESSES), "-m", "salsa", "align"]
    given = launch_command_parser().parse_args(["--main_process_port", "0", *command])
    arguments, config, _ = _validate_launch_command(given)
    if not arguments.use_deepspeed:
        return prepare_multi_gpu_env(arguments)
    arguments.deepspeed_fields_from_accelerate_config = ",".join(config.deepspeed_config)
    return prepare_deepspeed_cmd_env(arguments)[1]


def free_ports(count: int) -> str:
    """Ports that nobody uses, separated by spaces."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return " ".join(str(free.getsockname()[1]) for free in sockets)


@contextlib.contextmanager
def launching(folder: Path) -> Iterator[Callable[..., list[Launched]]]:
    """Yields launch(profile, stage, *arguments, …) -> its processes. Without a profile: one, without a launcher.

    "++" among the arguments begins another stage, which runs when the one before has ended. `folder` is for output.
    """
    begun: list[Launched] = []

    def start(profile: str | None, *arguments: object) -> list[Launched]:
        environment = dict(os.environ)
        threads = torch.get_num_threads()  # sums depend on it
        if profile:
            threads = 1
            environment = launched_by(profile) | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
            environment |= {"MASTER_ADDR": "127.0.0.1", "PORTS": free_ports(1 + arguments.count("++"))}
            environment |= {"WORLD_SIZE": str(PROCESSES), "LOCAL_WORLD_SIZE": str(PROCESSES)}
        started = []
        for rank in range(PROCESSES if profile else 1):
            ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if profile else {}
            output = folder / f"stderr-{len(begun)}"
            output.touch()
            given = (list(map(str, arguments)), environment | ranks, threads, output)
            process = forks.Process(target=run, args=given)
            process.start()
            started.append(Launched(process, output))
            begun.append(started[-1])
        return started

    try:
        yield start
    finally:
        for launched in begun:
            launched.process.kill()
            launched.process.join()
            launched.process.close()


@pytest.fixture
def launch(tmp_path_factory) -> Iterator[Callable[..., list[Launched]]]:
    with launching(tmp_path_factory.mktemp("launched")) as start:
        yield start


def ended(processes: list[Launched], status: int = 0) -> list[str]:
    """Output of each process, once all have ended with that exit status and without a traceback."""
    statuses = [launched.wait() for launched in processes]
    said = [launched.said for launched in processes]
    assert statuses == [status] * len(processes), said
    assert "Traceback" not in "".join(said), said
    return said
