"""Writes requirements.lock: pyproject.toml's dependencies and the dev extra, each pinned to one version.

Local versions (torch's +cpu) are cut off, so that the lock says which release it is and not which build: pip takes the
build that fits the machine.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"
HEADER = "# Made by `make lock` from pyproject.toml. Do not edit.\n"


def main() -> None:
    options = ["--extra=dev", "--quiet", "--strip-extras", "--no-header", "--no-annotate", "--no-emit-index-url"]
    options += ["--no-emit-find-links", "--no-emit-trusted-host", "--upgrade", "--output-file=-", "pyproject.toml"]
    found = subprocess.run(
        [sys.executable, "-m", "piptools", "compile", *options], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    pins = [re.sub(r"\+[\w.]+$", "", line) for line in found.splitlines() if re.match(r"[\w.-]+==", line)]
    # What only one platform needs (CUDA's libraries) comes with torch there.
    LOCK.write_text(HEADER + "\n".join(pins) + "\n")


if __name__ == "__main__":
    main()
