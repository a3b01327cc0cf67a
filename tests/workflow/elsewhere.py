"""Helpers of the tests that run the smoke grid's jobs elsewhere: tests/cluster, tests/kubernetes."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.workflow.running import snakemake

# A launcher as a profile may name one: what it is given fails when it is run first.
FAILS_ONCE = """\
#!/bin/sh
echo launched >> {folder}/launches
[ "$(wc -l < {folder}/launches)" -gt 1 ] || {{ echo "the node had a bad day" >&2; exit 1; }}
exec python "$@"
"""


def wait(what: str, found: Callable[[], object], process: "subprocess.Popen[str]", seconds: float = 300) -> None:
    """Wait until found() is true, while the process runs."""
    deadline = time.monotonic() + seconds
    while not found():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"{what}: not in {seconds} s"
        time.sleep(0.1)


def check_like_a_local_run(finished: Path, local: Path) -> None:
    """Check that tables, figures and report equal those of a run in `local`, byte for byte."""
    status, text = snakemake(local)
    assert status == 0, text
    made = [path for path in (local / "results/smoke").rglob("*") if path.suffix in (".md", ".csv", ".tex", ".png")]
    made += [local / "results/smoke/report.html"]
    assert len(made) > 25
    for path in made:
        assert path.read_bytes() == (finished / path.relative_to(local)).read_bytes(), path.name
