"""Load a configured benchmark: its code, its questions and references, and the sha256 of its files."""

import functools
import importlib
import importlib.util
import pkgutil
from collections.abc import Mapping
from pathlib import Path

import eval.benchmarks
from eval.benchmarks.base import Benchmark, Question, Row, Texts
from eval.protocols.verdicts import READERS
from salsa.config.sections import BenchmarkSettings
from salsa.data.rows import load_rows
from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import read_jsonl
from salsa.runtime.log import log
from salsa.runtime.provenance import sha256
from salsa.runtime.seeds import derive_seed
from salsa.runtime.settings import load_named_settings, load_settings

OF_PROTOCOL = {"mt_bench_single": "mt_bench", "mt_bench_pair": "mt_bench", "arena_hard": "arena_hard"}
HELPERS = {"arguments", "base", "download", "loading", "overlap", "question_files"}


def kinds() -> list[str]:
    """Names of the benchmarks in this package."""
    return sorted({module.name for module in pkgutil.iter_modules(eval.benchmarks.__path__)} - HELPERS)


@functools.cache
def find(kind: str) -> Benchmark:
    """The benchmark of a kind: a name in this package, or a Python file of your own that defines BENCHMARK."""
    if kind in kinds():
        module = importlib.import_module(f"eval.benchmarks.{kind}")
    elif kind.endswith(".py"):
        spec = importlib.util.spec_from_file_location(Path(kind).stem, kind)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except OSError as error:
            raise UserError(f"benchmark kind {kind}: cannot read it ({error.strerror}): correct the path") from None
        except Exception as error:  # the user's file may raise anything
            raise UserError(f"benchmark kind {kind}: {type(error).__name__}: {error}: fix the file") from error
    else:
        raise UserError(f"benchmark kind {kind}: unknown: use {', '.join(kinds())}, or your own .py file")
    benchmark = getattr(module, "BENCHMARK", None)
    if not isinstance(benchmark, Benchmark):
        raise UserError(f"benchmark kind {kind}: it defines no BENCHMARK = … of class Benchmark: add it at the end")
    if benchmark.grammar not in READERS:
        raise UserError(f"benchmark kind {kind}: unknown grammar {benchmark.grammar}: use {', '.join(READERS)}")
    return benchmark


def of_protocol(protocol: str) -> Benchmark:
    """The benchmark that defines a protocol."""
    return find(OF_PROTOCOL[protocol])


def pinned_files(settings: BenchmarkSettings, missing_is_fine: bool = False) -> None:
    """Raise a UserError if a file of the benchmark is missing or does not have its pinned sha256."""
    for path in filter(None, (settings.questions.path, settings.references, settings.judge_prompts)):
        pin = settings.download.get(path)
        if not Path(path).exists():
            if missing_is_fine:
                continue
            fix = f"download {pin.url} to it (sha256 {pin.sha256})" if pin else "put it there"
            raise UserError(f"{path}: no such file: {fix}, or name a local copy in the config")
        if pin and sha256(Path(path)) != pin.sha256:
            raise UserError(
                f"{path}: its sha256 is {sha256(Path(path))}, not {pin.sha256}: remove it and rerun to download it "
                "again, or correct the sha256 in the config"
            )


def load_references(path: Path) -> dict[str, Texts]:
    """Reference answers by question id, from FastChat's schema (choices[0].turns)."""
    references = {}
    for number, row in enumerate(read_jsonl(path), 1):
        try:
            references[str(row["question_id"])] = tuple(row["choices"][0]["turns"])
        except (KeyError, IndexError, TypeError) as error:
            raise UserError(f"{path}:{number}: no question_id with choices[0].turns ({error}): fix the line") from None
    return references


def load_questions(settings: BenchmarkSettings, seed: int) -> list[Question]:
    """Load a benchmark's questions, in file order."""
    pinned_files(settings)
    benchmark = find(settings.kind)
    references = load_references(Path(settings.references)) if settings.references else {}
    rows = load_rows(settings.questions, derive_seed(seed, "benchmark", settings.kind))
    where = settings.questions.path or f"{settings.questions.hub} {settings.questions.split}"
    return read_questions(benchmark, rows, references, where)


def read_questions(
    benchmark: Benchmark, rows: list[Row], references: Mapping[str, Texts], where: str
) -> list[Question]:
    """Convert rows to questions. A UserError names the first wrong row of `where`.

    Equal questions are merged: preference data repeat a prompt with different answers.
    """
    questions: dict[str, Question] = {}
    for number, row in enumerate(rows, 1):
        try:
            question = benchmark.question(row, references)
        except KeyError as error:
            raise UserError(
                f"{where}:{number}: no {error.args[0]}, which a question of this benchmark needs: fix the line"
            ) from None
        except (ValueError, TypeError) as error:
            raise UserError(f"{where}:{number}: {error}: fix the line") from None
        if questions.setdefault(question.question_id, question) != question:
            raise UserError(
                f"{where}:{number}: another question has the id {question.question_id}, and answers are matched by id: "
                "change one of them"
            )
    if len(questions) < len(rows):
        log.info("%s: merged %d repeated questions of %d rows", where, len(rows) - len(questions), len(rows))
    return list(questions.values())


def temperature(settings: BenchmarkSettings, question: Question) -> float:
    """Sampling temperature for a question: the config's, else the benchmark's."""
    return find(settings.kind).temperature(question) if settings.temperature is None else settings.temperature


def load_benchmarks(text: str) -> dict[str, BenchmarkSettings]:
    """Read the argument of --benchmarks: settings by name."""
    return load_named_settings(text, BenchmarkSettings, "--benchmarks")


def load_benchmark(text: str) -> tuple[str, BenchmarkSettings]:
    """Read the argument of --benchmark: NAME=JSON or NAME=FILE.yaml#section."""
    name, separator, settings = text.partition("=")
    if not separator or not name:
        raise UserError(f"--benchmark {text}: write it as NAME=JSON or NAME=FILE.yaml#benchmarks.NAME")
    return name, load_settings(settings, BenchmarkSettings, f"--benchmark {name}")
