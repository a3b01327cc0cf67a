"""Write requirements.lock: pyproject.toml's dependencies and the extras of the default environment, pinned.

Local versions (torch's +cpu) are removed, so the lock names the release and pip chooses the build for the machine.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"
EXTRAS = ("train", "report", "workflow", "dev")
HEADER = "# Made by `make lock` from pyproject.toml. Do not edit.\n"


def main() -> None:
    options = [
        *(f"--extra={extra}" for extra in EXTRAS),
        "--quiet",
        "--strip-extras",
        "--no-header",
        "--no-annotate",
        "--no-emit-index-url",
    ]
    options += ["--no-emit-find-links", "--no-emit-trusted-host", "--upgrade", "--output-file=-", "pyproject.toml"]
    found = subprocess.run(
        [sys.executable, "-m", "piptools", "compile", *options], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    pins = [re.sub(r"\+[\w.]+$", "", line) for line in found.splitlines() if re.match(r"[\w.-]+==", line)]
    # Packages of one platform (CUDA's libraries) come with torch there.
    LOCK.write_text(HEADER + "\n".join(pins) + "\n")


if __name__ == "__main__":
    main()
