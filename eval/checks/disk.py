"""Checks of disks: enough free space, folders that can be written, and file locks that work."""

import fcntl
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from huggingface_hub import constants

from eval.checks.check import Check
from eval.planning.formats import size
from eval.planning.grid_plan import Plan
from salsa.config import layout
from salsa.config.config import Config
from salsa.runtime.errors import UserError

DATA_RULES = ("fetch", "data", "world", "download")


def folders(config: Config) -> list[Check]:
    """One check per folder that a grid writes to."""
    paths = config.paths
    results = f"{paths.results}/{config.grid}"
    written = dict.fromkeys([paths.data, paths.checkpoints, results, paths.ledger or f"{results}/ledger"])
    return [Check("folder", folder, partial(check_folder, Path(folder))) for folder in written]


def file_systems(config: Config, plan: Plan) -> list[Check]:
    """One check of free space per file system."""
    by_device: dict[int, dict[Path, float]] = defaultdict(dict)
    for folder, need in bytes_needed(config, plan).items():
        by_device[nearest_existing(folder).stat().st_dev][folder] = need
    return [
        Check("disk", ", ".join(map(str, needs)), partial(check_free_space, next(iter(needs)), sum(needs.values())))
        for needs in by_device.values()
    ]


def bytes_needed(config: Config, plan: Plan) -> dict[Path, float]:
    """The bytes that a grid will still write, by folder: the plan's, less those on disk."""
    data = sum(run.job.cost.disk for run in plan.runs.values() if run.job.rule in DATA_RULES)
    fetched = sum(
        run.job.cost.disk
        for run in plan.runs.values()
        if run.job.rule == "fetch" and not Path(run.job.name.partition("/")[2]).exists()
    )
    folders = {
        Path(config.paths.data): data - bytes_in([f"{config.paths.data}/hub", f"{config.paths.data}/prepared"]),
        Path(layout.root(config)): plan.disk() - data - bytes_in([layout.root(config)]) + plan.scratch(),
        # The library datasets keeps its own copy of each download.
        hub_cache(): fetched,
    }
    return {folder: max(0.0, need) for folder, need in folders.items()}


def hub_cache() -> Path:
    """The folder to which the library datasets downloads."""
    return Path(os.environ.get("HF_DATASETS_CACHE") or f"{constants.HF_HOME}/datasets").expanduser()


def bytes_in(folders: Iterable[str]) -> float:
    """Bytes of all files below the folders, without following links."""
    return sum(path.lstat().st_size for folder in folders for path in Path(folder).rglob("*") if not path.is_dir())


def nearest_existing(path: Path) -> Path:
    """The folder itself, or its nearest parent that exists."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def check_folder(folder: Path) -> str:
    """Write a temporary file there and lock it."""
    place = nearest_existing(folder)
    try:
        with tempfile.NamedTemporaryFile(dir=place) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UserError(
                    f"{place}: the file system does not support locks (flock: {error.strerror}), which jobs need: "
                    "mount it with locks, or choose another folder (paths in the config)"
                ) from None
    except OSError as error:
        raise UserError(
            f"{place}: cannot write there ({error.strerror}): change its permissions, or choose another folder (paths "
            "in the config)"
        ) from None
    return "can be written and locked"


def check_free_space(folder: Path, need: float) -> str:
    """Check that the folder's file system has `need` bytes free."""
    free = shutil.disk_usage(nearest_existing(folder)).free
    if need > free:
        raise UserError(
            f"{size(need)} are needed, {size(free)} are free: free some space, or put paths.checkpoints of the config "
            "(or HF_HOME) on a larger disk"
        )
    return f"{size(need)} are needed, {size(free)} are free"
