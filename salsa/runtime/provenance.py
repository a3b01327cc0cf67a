"""Provenance: what an output was made from, by what code, on which machine.

Each stage writes a run.json inside its output folder, or beside its output file. The run id depends only on stage,
settings, seeds and inputs, so it is the same on every machine and day.
"""

import contextlib
import hashlib
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from salsa.runtime.errors import UserError

CODE = Path(__file__).parents[2]
RUN_FILE = "run.json"
PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "bitsandbytes",
    "datasets",
    "tokenizers",
    "safetensors",
    "openai",
    "vllm",
    "numpy",
)


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def input_id(path: Path) -> str:
    """Identify an input: by the run id in its run.json, else by the sha256 of the file or of the folder's files."""
    run = path / RUN_FILE if path.is_dir() else run_file(path)
    if run.exists():
        return f"run:{json.loads(run.read_text())['id']}"
    if path.is_file():
        return f"sha256:{sha256(path)}"
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder: run the stage that makes it, or correct the path")
    parts = [f"{file.relative_to(path)} {sha256(file)}" for file in sorted(path.rglob("*")) if file.is_file()]
    return f"sha256:{hashlib.sha256(chr(10).join(parts).encode()).hexdigest()}"


def run_file(path: Path) -> Path:
    """Path of the run.json that belongs to `path`."""
    return path / RUN_FILE if path.is_dir() else path.with_suffix(f".{RUN_FILE}")


def _git_commit() -> str | None:
    """Commit of the running code, with "+changes" if the working tree differs; None outside a git checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        # Runs write files that are under git (the mini grid's tables); only changes to code count.
        code = [str(CODE / name) for name in ("salsa", "eval", "rules", "Snakefile")]
        changed = [*git, "status", "--porcelain", "--untracked-files=no", "--", *code]
        dirty = subprocess.run(changed, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+changes" if dirty.strip() else "")


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def _processor() -> str:
    """Model name of the CPU."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _device() -> dict[str, Any]:
    """The hardware of this run, and the peak GPU memory of this process in MB.

    Vector instructions and thread count are recorded because floating-point sums depend on them in the last digits.
    """
    torch = sys.modules.get("torch")
    device: dict[str, Any] = {"device": f"cpu ({platform.machine()})", "processor": _processor()}
    if torch is None:
        return device
    device |= {"vector_instructions": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_reserved() / 2**20
        device |= {"device": torch.cuda.get_device_name(), "peak_device_memory_mb": round(peak, 1)}
    return device


class Run:
    """Provenance of one run of a stage. A stage adds its own facts to `extra` (data revisions, counts)."""

    def __init__(
        self, stage: str, settings: Mapping[str, Any], inputs: Mapping[str, Path], seeds: Mapping[str, int | str]
    ):
        self.stage, self.settings, self.seeds = stage, dict(settings), dict(seeds)
        self.inputs = {name: {"path": str(path), "id": input_id(path)} for name, path in sorted(inputs.items())}
        self.extra: dict[str, Any] = {}
        self.started = time.time()

    def id(self) -> str:
        """Content id: a hash of stage, settings, seeds and input ids."""
        key = [self.stage, self.settings, self.seeds, {name: entry["id"] for name, entry in self.inputs.items()}]
        return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]

    def record(self) -> dict[str, Any]:
        """Contents of run.json. Call it when the work is done: it includes the time and memory used."""
        return {
            "id": self.id(),
            "stage": self.stage,
            "settings": self.settings,
            "seeds": self.seeds,
            "inputs": self.inputs,
            **self.extra,
            "versions": _versions(),
            "git_commit": _git_commit(),
            **_device(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.started)),
            "wall_seconds": round(time.time() - self.started, 2),
            "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        }
