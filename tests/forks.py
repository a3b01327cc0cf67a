"""Start `python -m …` as forks of a process that has imported Snakemake and the commands' modules already.

Importing them takes longer than planning a grid. The project's own fork server starts them; a command that it refuses
starts without a fork.
"""

import atexit
import functools
import os
import subprocess
import sys
from pathlib import Path

from salsa.workflow import fork_server

MODULES = (
    *("snakemake.cli", "snakemake.report.html_reporter", "snakemake_logger_plugin_salsa", "smart_open"),
    *("eval.workflow.start", "eval.commands.main", "eval.planning.plan", "eval.checks.doctor"),
)
PYTHON = (sys.executable, "-m", "salsa.workflow.forked")  # in place of `python`
WITHOUT_KEYS = {"HF_TOKEN": "", "OPENAI_API_KEY": "", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
OF_PYTEST = ("PYTEST_CURRENT_TEST", "COLUMNS")  # COLUMNS would be the terminal's width


@functools.cache
def server() -> "tuple[subprocess.Popen[bytes] | None, dict[str, str]]":
    """Start this process's server, if the machine can have one. Returns it, and the variable that names it."""
    started = fork_server.start(Path(os.devnull), MODULES)
    if started:
        atexit.register(end, started)
    return started, {fork_server.NAME: os.environ.pop(fork_server.NAME)} if started else {}


def end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    process.wait()


def environment() -> dict[str, str]:
    """The environment of commands: that of a user without keys, who has activated the virtual environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    given = os.environ | WITHOUT_KEYS | server()[1] | {"PATH": path}
    return {name: value for name, value in given.items() if name not in OF_PYTEST}
