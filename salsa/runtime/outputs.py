"""Atomic outputs: files and folders are written under a temporary name and renamed when complete."""

import contextlib
import json
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from salsa.runtime.log import log
from salsa.runtime.provenance import RUN_FILE, Run, run_file

DAY = 86_400  # seconds


def _beside(path: Path, kind: str = "tmp") -> Path:
    """A unique temporary name next to `path`, on the same file system.

    The name holds process id and host, so the next writer of `path` can tell what a killed writer left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    return path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}@{platform.node()}.{kind}")


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files and folders that killed writers of `path` left.

    A writer on this host is dead if its process is gone. A writer on another host, or one whose process id is in use
    again, counts as dead if it wrote nothing for a day.
    """
    pattern = re.compile(rf"\.{re.escape(path.name)}\.(\d+)-[0-9a-f]{{8}}@(.*)\.(?:tmp|work)")
    for leftover in path.parent.iterdir():
        if (match := pattern.fullmatch(leftover.name)) is None:
            continue
        process, host = int(match[1]), match[2]
        if (host == platform.node() and not _is_alive(process)) or time.time() - _last_written(leftover) > DAY:
            log.info("removed %s, left by a killed run", leftover)
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
        return True  # another user's process
    return True


def _last_written(path: Path) -> float:
    """Modification time of the file, or the latest one in the folder; the current time if it vanishes meanwhile."""
    try:
        return max(entry.lstat().st_mtime for entry in (path, *path.rglob("*")))
    except FileNotFoundError:
        return time.time()


@contextlib.contextmanager
def output_file(path: Path, run: Run | None = None) -> Iterator[Path]:
    """Yields a temporary path to write to. On success the file is renamed to `path`; on an error it is removed.

    With `run`, its provenance is written beside the file.
    """
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
    """Like `output_file`, for a folder. An existing folder is replaced only when the new one is complete."""
    temporary = _beside(path)
    temporary.mkdir()
    try:
        yield temporary
        if run is not None:
            (temporary / RUN_FILE).write_text(json.dumps(run.record(), indent=2) + "\n")
        _apply_umask(temporary)
        if path.exists():
            old = _beside(path)
            path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old)
        else:
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _apply_umask(folder: Path) -> None:
    """Let a group read the folder's files if the umask does: safetensors writes files for their owner alone.

    Symbolic links stay, because they lead to a user's own files.
    """
    allowed = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(path.stat().st_mode | allowed)


@contextlib.contextmanager
def scratch(out: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `out` that is removed at the end."""
    folder = _beside(out, "work")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
