"""The disks: room for what a grid leaves, folders that can be written, and locks that work."""

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
from eval.planning.plan import Plan, size
from salsa.config import layout
from salsa.config.config import Config
from salsa.runtime.errors import UserError

DATA_RULES = ("fetch", "data", "world", "download")


def folders(config: Config) -> list[Check]:
    """Each folder that a grid writes to."""
    paths = config.paths
    results = f"{paths.results}/{config.grid}"
    each = dict.fromkeys([paths.data, paths.checkpoints, results, paths.ledger or f"{results}/ledger"])
    return [Check("folder", folder, partial(usable, Path(folder))) for folder in each]


def systems(config: Config, plan: Plan) -> list[Check]:
    """Each file system's room for what lies on it."""
    found, systems = [], defaultdict(list)
    for folder, need in needs(config, plan).items():
        systems[existing(folder).stat().st_dev].append((folder, need))
    for each in systems.values():
        names = ", ".join(str(folder) for folder, _ in each)
        found.append(Check("disk", names, partial(room, each[0][0], sum(need for _, need in each))))
    return found


def needs(config: Config, plan: Plan) -> dict[Path, float]:
    """Bytes still to come, by folder: what the plan says, less what is there."""
    data = sum(run.job.cost.disk for run in plan.runs.values() if run.job.rule in DATA_RULES)
    fetched = sum(
        run.job.cost.disk
        for run in plan.runs.values()
        if run.job.rule == "fetch" and not Path(run.job.name.partition("/")[2]).exists()
    )
    folders = {
        Path(config.paths.data): data - held([f"{config.paths.data}/hub", f"{config.paths.data}/prepared"]),
        Path(layout.root(config)): plan.disk() - data - held([layout.root(config)]) + plan.scratch(),
        # The client of data sets keeps what it loads a second time.
        hub_cache(): fetched,
    }
    return {folder: max(0.0, need) for folder, need in folders.items()}


def hub_cache() -> Path:
    """Where data sets are loaded to."""
    return Path(os.environ.get("HF_DATASETS_CACHE") or f"{constants.HF_HOME}/datasets").expanduser()


def held(folders: Iterable[str]) -> float:
    """Bytes of the files below, links not followed."""
    return sum(path.lstat().st_size for folder in folders for path in Path(folder).rglob("*") if not path.is_dir())


def existing(path: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    path = path.absolute()
    return next(each for each in (path, *path.parents) if each.is_dir())


def usable(folder: Path) -> str:
    """Writes a file beside what is there, and locks it."""
    place = existing(folder)
    try:
        with tempfile.NamedTemporaryFile(dir=place) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UserError(
                    f"{place}: its file system has no locks (flock: {error.strerror}), which jobs share: mount it with "
                    "them, or put the folder elsewhere (paths in the config)"
                ) from None
    except OSError as error:
        raise UserError(
            f"{place}: cannot write there ({error.strerror}): allow it, or name another folder (paths in the config)"
        ) from None
    return "can be written, and locked"


def room(folder: Path, need: float) -> str:
    """Whether so much more goes onto a folder's file system."""
    free = shutil.disk_usage(existing(folder)).free
    if need > free:
        raise UserError(
            f"{size(need)} are needed, {size(free)} are free: make room, or put paths.checkpoints of the config (or "
            "HF_HOME) on a larger disk"
        )
    return f"{size(need)} are needed, {size(free)} are free"
