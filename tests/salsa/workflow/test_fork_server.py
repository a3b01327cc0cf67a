"""Stages that the fork server starts, against the same stages started by python."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eval.workflow.start import PRELOADED
from salsa.workflow.forked import NAME, has_same_user

ROOT = Path(__file__).parents[3]
STAGE = """
import json, os, signal, sys, time
word = sys.argv[1]
if word == "waits":
    def end(*_):
        open("ended", "w").close()
        sys.exit(5)
    signal.signal(signal.SIGTERM, end)
    try:
        print("began", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        sys.exit(130)
print("an error message", file=sys.stderr)
facts = [__name__, sys.argv[1:], os.getcwd(), os.environ.get("COLOUR"), sys.stdin.readline()]
handlers = sorted(str(handler) for handler in map(signal.getsignal, (signal.SIGINT, signal.SIGCHLD)))
print(json.dumps([*facts, handlers]), flush=True)
if word == "forked":
    sys.exit("fractions" in sys.modules)
if word == "raises":
    raise RuntimeError("a bug")
if word == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(int(word))
"""
START = """
import os
from pathlib import Path
from salsa.workflow.fork_server import NAME, start
start(Path("logs/server.log"), ["fractions"])
print(os.environ[NAME], flush=True)
input()
"""


class Runner:
    """A server in a folder with a module `stage`."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "stage.py").write_text(STAGE)
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLOUR": "red"}
        self.begun: list[subprocess.Popen[str]] = []
        self.starter = self.begin("-c", START)
        self.environment[NAME] = self.starter.stdout.readline().strip()

    def begin(self, *words: str, **changes: str) -> "subprocess.Popen[str]":
        """Begin `python WORDS` with changes to the environment."""
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        environment = {**self.environment, **changes}
        command = [sys.executable, *words]
        process = subprocess.Popen(
            command, cwd=self.folder, env=environment, text=True, start_new_session=True, **pipes
        )
        self.begun.append(process)
        return process

    def by_python(self, word: str) -> "subprocess.Popen[str]":
        return self.begin("-m", "stage", word)

    def forked(self, word: str, **changes: str) -> "subprocess.Popen[str]":
        return self.begin("-m", "salsa.workflow.forked", "-m", "stage", word, **changes)

    def log(self) -> list[str]:
        return (self.folder / "logs/server.log").read_text().splitlines()


@pytest.fixture
def runner(tmp_path):
    made = Runner(tmp_path)
    yield made
    for process in made.begun:
        with process:
            process.kill()


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Exit status, output and errors of a stage that reads a line."""
    output, errors = process.communicate("a line\n", timeout=60)
    return process.returncode, output, errors


def wait_for(found, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("word", ["0", "3", "raises", "killed"])
def test_forked_stage_is_like_one_that_python_starts(word, runner):
    status, output, errors = finish(runner.by_python(word))
    found, found_output, found_errors = finish(runner.forked(word))
    assert (found, found_output) == (status, output) and "a line" in output
    assert [line for line in errors.splitlines() if line[0] != " "] == [
        line for line in found_errors.splitlines() if line[0] != " "
    ], "equal but for the frames of a traceback"
    assert finish(runner.by_python("forked"))[0] == 0 and finish(runner.forked("forked"))[0] == 1
    assert runner.log() == [f"forked: stage {word}", "forked: stage forked"]


def test_stage_in_another_environment_is_not_forked(runner):
    assert finish(runner.forked("0"))[0] == 0
    status, output, _ = finish(runner.forked("0", COLOUR="blue", OMP_NUM_THREADS="7"))
    assert status == 0 and '"blue"' in output
    assert runner.log() == ["forked: stage 0", "not forked: stage 0: other COLOUR, OMP_NUM_THREADS"]


def test_stage_ends_with_its_launcher(runner):
    """Snakemake ends a job by a signal to its launcher, which a stage treats as a signal to itself."""
    launcher = runner.forked("waits")
    assert launcher.stdout.readline() == "began\n"
    launcher.kill()
    wait_for((runner.folder / "ended").exists)


def test_ctrl_c_ends_the_stage_and_not_the_server(runner):
    """The terminal sends it to the server, the keeper, the launcher and the stage."""
    launcher = runner.forked("waits")
    assert launcher.stdout.readline() == "began\n"
    [keeper] = children(int(children(runner.starter.pid)[0]))
    [stage] = children(keeper)
    for process in (*children(runner.starter.pid), keeper, launcher.pid, stage):
        os.kill(process, signal.SIGINT)
    assert launcher.wait(30) == 130
    assert finish(runner.forked("0"))[0] == 0, "the server goes on"


def children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def test_server_ends_with_the_process_that_started_it(runner):
    """A stage goes on, as one that python started would; others start without the server."""
    launcher = runner.forked("waits")
    assert launcher.stdout.readline() == "began\n"
    [server] = children(runner.starter.pid)
    runner.starter.kill()
    wait_for(lambda: not Path(f"/proc/{server}/fd").exists() or not list(Path(f"/proc/{server}/fd").iterdir()))
    assert launcher.poll() is None
    assert finish(runner.forked("3"))[0] == 3 and runner.log() == ["forked: stage waits"]
    launcher.terminate()
    wait_for((runner.folder / "ended").exists)


def test_keepers_death_is_an_error(runner):
    launcher = runner.forked("waits")
    assert launcher.stdout.readline() == "began\n"
    [keeper] = children(children(runner.starter.pid)[0])
    [stage] = children(keeper)
    os.kill(keeper, signal.SIGKILL)
    assert launcher.wait(30) == 1
    os.kill(stage, signal.SIGTERM)  # it holds stderr
    said = "error: the process that waits for this stage was killed: rerun the same command\n"
    assert launcher.stderr.read() == said


def test_other_users_are_refused(monkeypatch):
    """The names of the sockets are public."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert has_same_user(ours)
        monkeypatch.setattr(os, "getuid", lambda: 12345)
        assert not has_same_user(ours)


def test_preloading_starts_no_thread():
    """A fork has the calling thread alone, and what other threads held stays locked in it.

    The thread of pyarrow's jemalloc is one that jemalloc prepares for forks.
    """
    code = f"""
import {", ".join(PRELOADED)}
from pathlib import Path
print(*[task.joinpath("comm").read_text().strip() for task in Path("/proc/self/task").iterdir()])
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert len([name for name in said.stdout.split() if name != "jemalloc_bg_thd"]) == 1
