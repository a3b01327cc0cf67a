"""Outputs that appear whole or not at all: written beside, then renamed."""

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
