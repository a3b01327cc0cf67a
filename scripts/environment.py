"""Make the environment of `make mini`, or add the development tools of `make test` to it.

uv installs it: the `uv` of this machine, or one that pip brings into the environment. The packages are those that
pyproject.toml asks for, in the versions and with the hashes of requirements.lock. torch comes in the build that fits
the machine. Settings of pip (indexes, folders of wheels, certificates) hold for uv, too, unless uv has its own.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
EXTRAS = ("train", "report", "workflow")
TORCH_INDEX = "https://download.pytorch.org/whl/cpu/torch/"
SECONDS = 10  # to wait for the index of torch
SCOPES = ("global", "user", "site", "install", ":env:")  # of pip's settings: a later one wins
# pip's settings, and uv's names of them.
SETTINGS = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
}


class SetUpError(Exception):
    """The set-up failed. The message says why and what to do."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(command: list[str], environment: Mapping[str, str] | None = None) -> None:
    """Run a command and hide its output. Raises a SetUpError if it fails."""
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SetUpError(reason(done.stderr or done.stdout))


def reason(text: str) -> str:
    """Why uv or pip failed: one line if the cause is the network or a hash, their whole message otherwise."""
    if match := re.search(r"Failed to fetch: [`']?(\S+?)[`']?$", text, re.MULTILINE):
        causes = re.findall(r"cause: (.+)", text)
        return (
            f"{match[1]} cannot be read ({causes[-1] if causes else 'no answer'}): check the network and the index "
            "(UV_DEFAULT_INDEX, or pip's index-url), then run make again"
        )
    if re.search(r"No matching distribution found for uv\b", text):
        return (
            "uv cannot be downloaded: check the network and pip's index-url, or install uv "
            "(https://docs.astral.sh/uv), then run make again"
        )
    if match := re.search(r"Hash mismatch for `(\S+)`", text):
        return (
            f"{match[1]}: the file from the index is not the one of requirements.lock: its hash differs. Check the "
            "index; if the lock is older than the release, run make lock"
        )
    return text.strip()


def pip_settings(python: str) -> dict[str, str]:
    """pip's settings under uv's names. Folders that do not exist are left out: pip ignores them, uv fails."""
    listed = subprocess.run([python, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    lines = [line for line in re.findall(r"^(\S+?)\.([\w-]+)='(.*)'$", listed, re.MULTILINE) if line[0] in SCOPES]
    settings = {}
    for _, name, value in sorted(lines, key=lambda line: SCOPES.index(line[0])):
        places = [place for place in re.split(r"\\n|\s+", value) if place and exists(place)]
        if places and (uv_name := SETTINGS.get(name)):
            settings[uv_name] = (" " if uv_name == "UV_INDEX" else ",").join(places)
    if "UV_INDEX" in settings:
        # As pip does: the pinned version may come from any of the indexes. Its hash is checked.
        settings["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return settings


def exists(place: str) -> bool:
    """Whether a folder or file exists; addresses of servers count as existing."""
    if "://" in place and not place.startswith("file://"):
        return True
    return Path(place.removeprefix("file://")).exists()


def find_uv(venv: Path) -> str:
    """The path of uv, which pip installs into the environment if the machine has none."""
    uv = venv / "bin" / "uv"
    if not uv.exists():
        if installed := shutil.which("uv"):
            return installed
        # The lock's entry: the pinned version and its hashes.
        [entry] = re.findall(r"^uv==(?:.*\\\n)*.*\n", LOCK.read_text(), re.MULTILINE)
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write(entry)
            file.flush()
            run([str(venv / "bin/python"), "-m", "pip", "install", "--quiet", "--no-deps", "--requirement", file.name])
    return str(uv)


def has_nvidia_gpu() -> bool:
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and "GPU" in listed.stdout


def torch_options(build: str) -> tuple[list[str], str]:
    """uv's options for a build of torch (auto, cpu or cuda), and what to tell the person."""
    if platform.system() != "Linux":
        return [], ""
    if build == "cuda" or (build == "auto" and has_nvidia_gpu()):
        return [], "torch: the build for CUDA"
    why = "no NVIDIA GPU is found; TORCH=cuda takes the build for CUDA" if build == "auto" else "as TORCH says"
    try:
        urllib.request.urlopen(urllib.request.Request(TORCH_INDEX, method="HEAD"), timeout=SECONDS).close()
    except (urllib.error.URLError, OSError):
        return [], (
            "torch: the build of the usual index, because https://download.pytorch.org cannot be reached. "
            "PyPI's is for CUDA and takes 3 GB more"
        )
    return ["--torch-backend", "cpu"], f"torch: the build for CPUs ({why})"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--venv", type=Path, required=True, help="the environment's folder")
    parser.add_argument("--torch", choices=("auto", "cpu", "cuda"), default="auto", help="the build of torch")
    parser.add_argument("--dev", action="store_true", help="add tests, linters and documentation to a made environment")
    arguments = parser.parse_args()
    venv = arguments.venv.absolute()
    python = str(venv / "bin" / "python")
    try:
        if not arguments.dev:
            run([sys.executable, "-m", "venv", "--clear", str(venv)])
        uv = find_uv(venv)
        environment = pip_settings(python) | os.environ
        options: list[str] = []
        if not arguments.dev:
            options, text = torch_options(arguments.torch)
            if text:
                say(text)
        extras = [*EXTRAS, *(["dev"] if arguments.dev else [])]
        if os.environ.get("PYTHONDONTWRITEBYTECODE"):
            # Otherwise Python compiles what it imports once; here each start would do so again, for seconds.
            options.append("--compile-bytecode")
        packages = ["--constraints", str(LOCK), "--editable", f"{ROOT}[{','.join(extras)}]"]
        run([uv, "pip", "install", "--quiet", "--python", python, *options, *packages], environment)
    except SetUpError as error:
        say(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
