"""Files that the config names: of this machine, or of the web with known bytes."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx2

from eval.benchmarks import find, pinned_files
from eval.checks.check import PREPARE, TRY_SECONDS, Check
from salsa.checkpoints.adopt import check_folder, read_template
from salsa.config import layout
from salsa.config.config import Config, for_model
from salsa.config.sections import BenchmarkSettings, DataSource, Download
from salsa.data.rows import local_files
from salsa.data.training_sets import all_sets
from salsa.runtime.errors import UserError


def checks(config: Config) -> list[Check]:
    """Each file once."""
    found: dict[str, Check] = {}
    for check in (*_models(config), *_downloads(config), *_named(config)):
        found.setdefault(check.what, check)
    return list(found.values())


def _models(config: Config) -> Iterator[Check]:
    for entry in config.models.values():
        existing = entry.hub or entry.local
        if existing is not None:
            yield Check("file", existing.chat_template, partial(_template, existing.chat_template))
        if entry.local is not None:
            yield Check("folder", entry.local.path, partial(_checkpoint, entry.local.path))


def _template(path: str) -> str:
    read_template(path)
    return "a chat template"


def _checkpoint(path: str) -> str:
    check_folder(Path(path))
    return "a checkpoint with its tokenizer"


def _downloads(config: Config) -> Iterator[Check]:
    for name, benchmark in config.benchmarks.items():
        for path, source in benchmark.download.items():
            yield Check("file", path, partial(_download, name, benchmark, path, source))


def _download(name: str, benchmark: BenchmarkSettings, path: str, source: Download) -> str:
    """Whether the file is here as it should be, or can be had."""
    if Path(path).exists():
        pinned_files(benchmark, missing_is_fine=True)
        return "is here"
    try:
        # Not every server knows HEAD; of this reply nothing but the head is read.
        with httpx2.stream("GET", source.url, timeout=TRY_SECONDS, follow_redirects=True) as reply:
            reply.raise_for_status()
    except httpx2.HTTPStatusError as error:
        raise UserError(
            f"{source.url}: HTTP {error.response.status_code}: correct benchmarks.{name}.download, or put the file "
            f"there yourself (its sha256 has to be {source.sha256})"
        ) from None
    except httpx2.HTTPError as error:
        raise UserError(
            f"cannot reach {httpx2.URL(source.url).host} ({str(error) or type(error).__name__}): mend the network, "
            f"{PREPARE}, or put the file there yourself (benchmarks.*.download has its address and sha256)"
        ) from None
    return f"to be fetched from {source.url}"


def _named(config: Config) -> Iterator[Check]:
    """What has to be there already: neither the world's nor downloaded."""
    for where, path in _paths(config):
        if not Path(path).is_relative_to(layout.world_folder(config)):
            yield Check("file", path, partial(_is_file, where, path))
    for name, benchmark in config.benchmarks.items():
        if benchmark.kind.endswith(".py"):
            yield Check("file", benchmark.kind, partial(_kind, name, benchmark.kind))


def _paths(config: Config) -> Iterator[tuple[str, str]]:
    sources: list[tuple[str, DataSource]] = []
    for model in config.models:
        sources += [(f"{name} of {model}", each.source) for name, each in all_sets(config, model).items()]
        sources.append((f"alpha.prompts of {model}", for_model(config, model).alpha.prompts))
    sources += [(f"benchmarks.{name}.questions", each.questions) for name, each in config.benchmarks.items()]
    yield from ((where, source.path) for where, source in sources if source.path is not None)
    for name, benchmark in config.benchmarks.items():
        for key in ("references", "judge_prompts"):
            path = getattr(benchmark, key)
            if path is not None:
                yield f"benchmarks.{name}.{key}", path
    if config.assumptions is not None:
        yield "assumptions", config.assumptions


def _is_file(where: str, path: str) -> str:
    try:
        for each in local_files(Path(path)):
            with each.open("rb") as file:
                file.read(1)
    except OSError as error:
        raise UserError(
            f"{where}: cannot read it ({error.strerror}): put the file there, or correct the path"
        ) from None
    return where


def _kind(name: str, path: str) -> str:
    find(path)
    return f"benchmarks.{name}"
