"""What every stage shares: settings from the command line, outputs written beside and renamed, provenance.

A stage is a command that reads paths and one section of the config and writes one file or folder. Nothing
here knows which stage runs.
"""

import argparse
import contextlib
import gc
import hashlib
import importlib
import json
import logging
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from salsa.errors import RESUBMIT, Interrupted, UserError, disk_fault
from salsa.texts import VisibleFormatter, visible, without_lone_surrogates

CODE = Path(__file__).parents[1]
RUN_FILE = "run.json"
DAY = 86_400  # seconds
PACKAGES = ("torch", "transformers", "trl", "datasets", "tokenizers", "safetensors", "openai", "vllm", "numpy")
ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
S = TypeVar("S", bound=BaseModel)
log = logging.getLogger("salsa")


def describe(error: ValidationError, where: str) -> str:
    """A pydantic error as one line: where it is, the first thing that is wrong, and how many more there are."""
    first, *rest = error.errors()
    key = ".".join(str(part) for part in first["loc"])
    fix = {
        "extra_forbidden": "unknown key: remove it or correct its spelling",
        "missing": "required key is missing: add it",
        "value_error": str(first.get("ctx", {}).get("error")),  # without pydantic's "Value error, "
    }.get(first["type"], first["msg"])
    more = f" (and {len(rest)} more)" if rest else ""
    return ": ".join(part for part in (where, key, fix) if part) + more


def load_settings(text: str, schema: type[S]) -> S:
    """The stage's settings from JSON text, or from `FILE.yaml#section.subsection`."""
    if text.lstrip().startswith("{"):
        where, data = "--settings", json.loads(text)
    else:
        file, _, section = text.partition("#")
        where = text
        try:
            data = yaml.safe_load(Path(file).read_text())
        except OSError as error:
            raise UserError(
                f"--settings: cannot read {file}: {error.strerror}; give JSON or FILE.yaml#section"
            ) from None
        for key in filter(None, section.split(".")):
            if not isinstance(data, Mapping) or key not in data:
                raise UserError(f"{file}: no section {section}: give one that the file has")
            data = data[key]
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        raise UserError(describe(error, where)) from None


def settings_help(schema: type[BaseModel]) -> str:
    """A section's keys with defaults and meanings, for a command's --help."""
    lines = ["settings:"]
    for name, field in schema.model_fields.items():
        value = field.get_default(call_default_factory=True, validated_data={})
        lines.append(f"  {name} ({'required' if field.is_required() else f'default {json.dumps(value)}'})")
        text = field.description or ""
        lines += textwrap.wrap(text, width=100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def input_id(path: Path) -> str:
    """What an input is known by: the run id that a stage left, else the sha256 of the file (or of a folder's files)."""
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
    """Where the provenance of `path` lies: inside a folder, beside a file."""
    return path / RUN_FILE if path.is_dir() else path.with_suffix(f".{RUN_FILE}")


def _git_commit() -> str | None:
    """The commit of the code that runs, with a mark when the tree differs from it; None outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        # What a run itself writes, tables that are kept in git for one, is no change of the code.
        code = [str(CODE / name) for name in ("salsa", "eval", "rules", "Snakefile")]
        changed = [*git, "status", "--porcelain", "--untracked-files=no", "--", *code]
        dirty = subprocess.run(changed, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+changes" if dirty.strip() else "")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _processor() -> str:
    """The processor's name, as Linux or else Python has it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _device() -> dict[str, Any]:
    """What the stage computed on, and the most that this process held of a GPU's memory.

    Sums depend in their last digits on the processor's vector instructions and on the number of threads.
    """
    torch = sys.modules.get("torch")
    found: dict[str, Any] = {"device": f"cpu ({platform.machine()})", "processor": _processor()}
    if torch is None:
        return found
    found |= {"vector_instructions": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_reserved() / 2**20
        found |= {"device": torch.cuda.get_device_name(), "peak_device_memory_mb": round(peak, 1)}
    return found


class Run:
    """The provenance of one stage's run; `extra` takes what only that stage knows (data revisions, counts)."""

    def __init__(self, stage: str, settings: Mapping[str, Any], inputs: Mapping[str, Path], seeds: Mapping[str, int]):
        self.stage, self.settings, self.seeds = stage, dict(settings), dict(seeds)
        self.inputs = {name: {"path": str(path), "id": input_id(path)} for name, path in sorted(inputs.items())}
        self.extra: dict[str, Any] = {}
        self.started = time.time()

    def id(self) -> str:
        """Content id: the same stage, settings, seeds and inputs give the same id on every machine and day."""
        key = [self.stage, self.settings, self.seeds, {name: entry["id"] for name, entry in self.inputs.items()}]
        return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]

    def record(self) -> dict[str, Any]:
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


def _beside(path: Path, kind: str = "tmp") -> Path:
    """A name of its own next to `path`, on the same file system, so that two jobs never write the same bytes.

    It names this process and host, by which the next writer of `path` knows what a killed one left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    return path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}@{platform.node()}.{kind}")


def _remove_leftovers(path: Path) -> None:
    """Remove the temporary files and folders of writers of `path` that were killed.

    A writer on this host is dead when its process is gone. One on another host, or whose process number was given
    out again, is taken for dead when it wrote nothing for a day.
    """
    pattern = re.compile(rf"\.{re.escape(path.name)}\.(\d+)-[0-9a-f]{{8}}@(.*)\.(?:tmp|work)")
    for leftover in path.parent.iterdir():
        if (match := pattern.fullmatch(leftover.name)) is None:
            continue
        process, host = int(match[1]), match[2]
        if (host == platform.node() and not _is_alive(process)) or time.time() - _last_written(leftover) > DAY:
            log.info("%s: removed, its writer was killed", leftover)
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's
    return True


def _last_written(path: Path) -> float:
    """When the file, or the folder or anything in it, was last written; now where it vanishes meanwhile."""
    try:
        return max(entry.lstat().st_mtime for entry in (path, *path.rglob("*")))
    except FileNotFoundError:
        return time.time()


@contextlib.contextmanager
def output_file(path: Path, run: Run | None = None) -> Iterator[Path]:
    """Yields a name to write to; the file appears under `path` when the block ends well, not at all otherwise."""
    temporary = _beside(path)
    try:
        yield temporary
        if run is not None:
            run_file(path).write_text(json.dumps(run.record(), indent=2) + "\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def output_folder(path: Path, run: Run | None = None) -> Iterator[Path]:
    """Like `output_file` for a folder; an older folder of that name is replaced only by a whole one."""
    temporary = _beside(path)
    temporary.mkdir()
    try:
        yield temporary
        if run is not None:
            (temporary / RUN_FILE).write_text(json.dumps(run.record(), indent=2) + "\n")
        if path.exists():
            old = _beside(path)
            path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old)
        else:
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def scratch(out: Path) -> Iterator[Path]:
    """A folder beside `out` for what is of no use once the stage is done; it is gone then."""
    folder = _beside(out, "work")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]], mode: Literal["w", "a"] = "w") -> None:
    """One JSON object a line, UTF-8, keys in the order given; mode "a" adds them to the file."""
    with path.open(mode, encoding="utf-8") as handle:
        for row in rows:
            handle.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file; a broken line is the user's error and is named.

    UTF-8, with or without a byte order mark; a lone surrogate becomes U+FFFD.
    """
    rows = []
    try:
        handle = path.open("rb")
    except OSError as error:
        raise UserError(f"{path}: cannot read it: {error.strerror}; correct the path or make the file") from None
    with handle:
        for number, line in enumerate(handle, 1):
            if not line.strip():
                continue
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                row = json.loads(text)
            except UnicodeDecodeError as error:
                raise UserError(f"{path}:{number}: not UTF-8 ({error}): convert the file, or remove the line") from None
            except ValueError as error:
                raise UserError(f"{path}:{number}: not JSON ({error}): mend or remove the line") from None
            if not isinstance(row, dict):
                raise UserError(f"{path}:{number}: a JSON object is expected, not {type(row).__name__}: mend the line")
            rows.append(without_lone_surrogates(row) if ESCAPED_SURROGATE.search(text) else row)
    return rows


def main(program: str, commands: Mapping[str, tuple[str, str]]) -> int:
    """Runs the stage named on the command line; a UserError becomes one line and exit status 1, an Interrupted
    one line and RESUBMIT, Ctrl-C one line and 130 as in shells, a full or closed disk one line and 1.

    `commands` maps a name to its module and help line. Only the module of the command asked for is imported
    (its `add_arguments(parser)` and `run(arguments)`), so that tables never wait for torch.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {program}")
    listing = "\n".join(f"  {name:<12}{text}" for name, (_, text) in commands.items())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"commands:\n{listing}\n\npython -m {program} COMMAND --help shows a command's arguments"
    parser.add_argument("command", choices=commands, metavar="COMMAND")
    name = parser.parse_args(sys.argv[1:2]).command
    module_name, text = commands[name]
    handler = logging.StreamHandler()
    handler.setFormatter(VisibleFormatter("%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    log.setLevel(logging.INFO)
    try:
        # A sixth of the start-up of torch and transformers is the collector's search through what they define.
        gc.disable()
        module = importlib.import_module(module_name)
        gc.freeze()
        gc.enable()
        parser = argparse.ArgumentParser(prog=f"python -m {program} {name}", description=text)
        module.add_arguments(parser)
        module.run(parser.parse_args(sys.argv[2:]))
    except UserError as error:
        print(f"error: {visible(str(error))}", file=sys.stderr)
        return 1
    except Interrupted as interruption:
        print(interruption, file=sys.stderr)
        return RESUBMIT
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        return 128 + signal.SIGINT
    except Exception as error:
        if (line := disk_fault(error)) is None:
            raise
        print(f"error: {visible(line)}", file=sys.stderr)
        return 1
    return 0
