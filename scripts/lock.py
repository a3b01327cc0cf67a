"""Write requirements.lock: what pyproject.toml and the extras of the default environment need, pinned, with hashes.

It holds for Linux and macOS and for each Python from 3.11 on: packages of one system or Python have a marker.
"""

import re
import subprocess
import sys
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"
EXTRAS = ("train", "report", "workflow", "dev")
HEADER = "# Made by `make lock` from pyproject.toml. Do not edit.\n"
TORCH = re.compile(r"^torch==(\S+) \\\n((?:    --hash=sha256:\w+(?: \\)?\n)+)", re.MULTILINE)
TORCH_INDEX = "https://download.pytorch.org/whl/cpu/torch/"


def compiled() -> str:
    """The newest versions that fit together, with the hashes of PyPI's files."""
    options = ["--universal", "--python-version=3.11", "--generate-hashes", "--upgrade", "--quiet"]
    options += ["--no-header", "--no-annotate", "--default-index=https://pypi.org/simple"]
    extras = [f"--extra={extra}" for extra in EXTRAS]
    command = [str(Path(sys.executable).with_name("uv")), "pip", "compile", *options, *extras, "pyproject.toml"]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def cpu_hashes(version: str) -> set[str]:
    """Hashes of the builds of torch for CPUs, which PyPI does not have."""
    with urllib.request.urlopen(TORCH_INDEX, timeout=60) as page:
        text = page.read().decode()
    return set(re.findall(rf"torch-{re.escape(version)}%2Bcpu-[\w.-]+\.whl#sha256=(\w{{64}})", text))


def with_cpu_builds(lock: str, old: str) -> str:
    """Add the hashes of the builds for CPUs to torch's entry. If the release is the old lock's, so are the hashes."""
    match, before = TORCH.search(lock), TORCH.search(old)
    assert match is not None
    hashes = set(re.findall(r"sha256:(\w+)", match[2]))
    same = before is not None and before[1] == match[1]
    hashes |= set(re.findall(r"sha256:(\w+)", before[2])) if before and same else cpu_hashes(match[1])
    lines = " \\\n".join(f"    --hash=sha256:{digest}" for digest in sorted(hashes))
    return f"{lock[: match.start()]}torch=={match[1]} \\\n{lines}\n{lock[match.end() :]}"


def main() -> None:
    LOCK.write_text(HEADER + with_cpu_builds(compiled(), LOCK.read_text()))


if __name__ == "__main__":
    main()
