"""Run Snakemake on the project's workflow in another folder, and read what it prints."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests import forks

ROOT = Path(__file__).parents[2]
SMOKE = ("config/smoke.yaml",)
SLOW = 900  # seconds; no command of a test takes as long


def start(
    folder: Path, *arguments: str, output: int = subprocess.PIPE, python: Sequence[str] = (sys.executable,)
) -> "subprocess.Popen[str]":
    """Snakemake in `folder`, in a process group of its own."""
    command = [*python, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "2"]
    return subprocess.Popen(
        [*command, "--workflow-profile", str(ROOT / "profiles/default"), *arguments],
        cwd=folder,
        env=forks.environment(),
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def snakemake(folder: Path, *arguments: str, config: tuple[Path | str, ...] = SMOKE) -> tuple[int, str]:
    """Exit status and what Snakemake says."""
    process = start(folder, *arguments, "--configfile", *[str(ROOT / path) for path in config], python=forks.PYTHON)
    said, _ = process.communicate(timeout=SLOW)
    return process.returncode, said


def finished_jobs(said: str) -> Counter[str]:
    """Finished jobs by rule, from a run's lines."""
    return Counter(re.findall(r"^[\d:]{8} +\d+/\d+ +[\d:]+  (\w+)", said, re.M))


def planned(status: int, said: str) -> dict[str, str]:
    """Number of jobs by rule in a dry run."""
    assert status == 0, said
    return dict(line.split() for line in said.splitlines() if len(line.split()) == 2 and line.split()[1].isdigit())
