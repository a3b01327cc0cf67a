"""Run a stage in several processes, as accelerate's launcher starts them."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

PROFILES = Path(__file__).parents[2] / "profiles/accelerate"
PROCESSES = 2
Processes = list["subprocess.Popen[str]"]


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
def launching() -> Iterator[Callable[..., Processes]]:
    """Yields launch(profile, stage, *arguments, …) -> its processes. Without a profile: one, without a launcher.

    "++" among the arguments begins another stage, which runs when the one before has ended.
    """
    begun: Processes = []

    def start(profile: str | None, *arguments: object) -> Processes:
        program = [sys.executable, Path(__file__).with_name("launched_process.py"), *arguments]
        environment = {**(launched_by(profile) if profile else os.environ), "OMP_NUM_THREADS": "1"}
        meet = {"MASTER_ADDR": "127.0.0.1", "PORTS": free_ports(1 + arguments.count("++"))}
        meet |= {"WORLD_SIZE": str(PROCESSES), "LOCAL_WORLD_SIZE": str(PROCESSES), "ACCELERATE_USE_CPU": "true"}
        mine = [
            subprocess.Popen(
                list(map(str, program)),
                stderr=subprocess.PIPE,
                text=True,
                env=environment | (meet | {"RANK": str(rank), "LOCAL_RANK": str(rank)} if profile else {}),
            )
            for rank in range(PROCESSES if profile else 1)
        ]
        begun.extend(mine)
        return mine

    try:
        yield start
    finally:
        for process in begun:
            process.kill()
            process.communicate()


@pytest.fixture
def launch() -> Iterator[Callable[..., Processes]]:
    with launching() as start:
        yield start


def ended(processes: Processes, status: int = 0) -> list[str]:
    """Output of each process, once all have ended with that exit status and without a traceback."""
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [status] * len(processes), said
    assert "Traceback" not in "".join(said), said
    return said
