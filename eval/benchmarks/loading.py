"""From the config to questions: the benchmark's code, its files and their known bytes."""

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
from salsa.runtime.settings import load_settings

OF_PROTOCOL = {"mt_bench_single": "mt_bench", "mt_bench_pair": "mt_bench", "arena_hard": "arena_hard"}
HELPERS = {"base", "download", "loading", "overlap", "question_files"}


def kinds() -> list[str]:
    """The benchmarks that come with the project."""
    return sorted({module.name for module in pkgutil.iter_modules(eval.benchmarks.__path__)} - HELPERS)


@functools.cache
def find(kind: str) -> Benchmark:
    """The benchmark of a kind: one that comes with the project, or the BENCHMARK of a Python file of one's own."""
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
        except Exception as error:  # whatever a file of the user's own raises
            raise UserError(f"benchmark kind {kind}: {type(error).__name__}: {error}: mend the file") from error
    else:
        raise UserError(f"benchmark kind {kind}: there is none: take {', '.join(kinds())}, or a .py file of your own")
    found = getattr(module, "BENCHMARK", None)
    if not isinstance(found, Benchmark):
        raise UserError(f"benchmark kind {kind}: no BENCHMARK = … of class Benchmark in it: add it at its end")
    if found.grammar not in READERS:
        raise UserError(f"benchmark kind {kind}: no grammar {found.grammar}: take one of {', '.join(READERS)}")
    return found


def of_protocol(protocol: str) -> Benchmark:
    """The benchmark that a protocol was made for."""
    return find(OF_PROTOCOL[protocol])


def pinned_files(settings: BenchmarkSettings, missing_is_fine: bool = False) -> None:
    """Refuses files that are missing, or that are not what their pin says."""
    for path in filter(None, (settings.questions.path, settings.references, settings.judge_prompts)):
        pin = settings.download.get(path)
        if not Path(path).exists():
            if missing_is_fine:
                continue
            fix = f"download {pin.url} and put it there (sha256 {pin.sha256})" if pin else "put it there"
            raise UserError(f"{path}: no such file: {fix}, or name a local copy in the config")
        if pin and sha256(Path(path)) != pin.sha256:
            raise UserError(
                f"{path}: its sha256 is {sha256(Path(path))}, not {pin.sha256}: remove it and run again to have it "
                "downloaded, or correct the pin in the config"
            )


def load_references(path: Path) -> dict[str, Texts]:
    """Reference answers by question, in FastChat's schema: choices[0].turns."""
    found = {}
    for number, row in enumerate(read_jsonl(path), 1):
        try:
            found[str(row["question_id"])] = tuple(row["choices"][0]["turns"])
        except (KeyError, IndexError, TypeError) as error:
            raise UserError(f"{path}:{number}: no question_id with choices[0].turns ({error}): mend the line") from None
    return found


def load_questions(settings: BenchmarkSettings, seed: int) -> list[Question]:
    """The benchmark's questions, in the file's order."""
    pinned_files(settings)
    benchmark = find(settings.kind)
    references = load_references(Path(settings.references)) if settings.references else {}
    rows = load_rows(settings.questions, derive_seed(seed, "benchmark", settings.kind))
    where = settings.questions.path or f"{settings.questions.hub} {settings.questions.split}"
    return read_questions(benchmark, rows, references, where)


def read_questions(
    benchmark: Benchmark, rows: list[Row], references: Mapping[str, Texts], where: str
) -> list[Question]:
    """The rows as questions, each once; a UserError says what is wrong with which row of `where`.

    Preference data ask a prompt several times, with other answers: as questions these are one.
    """
    questions: dict[str, Question] = {}
    for number, row in enumerate(rows, 1):
        try:
            question = benchmark.question(row, references)
        except KeyError as error:
            raise UserError(
                f"{where}:{number}: no {error.args[0]}: a question of this benchmark needs it: mend the line"
            ) from None
        except (ValueError, TypeError) as error:
            raise UserError(f"{where}:{number}: {error}: mend the line") from None
        if questions.setdefault(question.question_id, question) != question:
            raise UserError(
                f"{where}:{number}: another question is called {question.question_id} too: answers are matched by "
                "that name, change one"
            )
    if len(questions) < len(rows):
        log.info("%s: %d lines ask the same again, of %d", where, len(rows) - len(questions), len(rows))
    return list(questions.values())


def temperature(settings: BenchmarkSettings, question: Question) -> float:
    """What a question is answered at: the config's temperature, else the protocol's own."""
    return find(settings.kind).temperature(question) if settings.temperature is None else settings.temperature


def parse_benchmarks(texts: list[str]) -> dict[str, BenchmarkSettings]:
    """NAME=JSON arguments (or NAME=FILE.yaml#section)."""
    benchmarks = {}
    for text in texts:
        name, found, settings = text.partition("=")
        if not found or not name:
            raise UserError(f"--benchmark {text}: write it as NAME=JSON or NAME=FILE.yaml#benchmarks.NAME")
        benchmarks[name] = load_settings(settings, BenchmarkSettings)
    return benchmarks
