"""Benchmark questions from their published schemas: MT-Bench, Arena-Hard (either of its two), UltraFeedback."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from salsa.data import load_rows
from salsa.errors import UserError
from salsa.sections import BenchmarkSettings
from salsa.seeds import derive_seed
from salsa.stage import load_settings, read_jsonl

Row = dict[str, Any]

# FastChat's llm_judge: how warm answers are, by category; the others take 0.
MT_BENCH_TEMPERATURES = {"writing": 0.7, "roleplay": 0.7, "stem": 0.1, "humanities": 0.1}
# The judge is shown a reference in these alone, whatever the file has for others.
REFERENCE_CATEGORIES = frozenset({"math", "reasoning", "coding"})
# GPT-4's reference answers that are wrong (FastChat, pull request 3158).
WRONG_REFERENCES = frozenset(
    ["104", "105", "109", "111", "113", "114", "120", "122", "124", "125", "126", "128", "130"]
)
WRONG_REFERENCE = "wrong_reference"


@dataclass(frozen=True)
class Question:
    """A question of one or two user turns; `reference` holds an answer a turn where the benchmark has one."""

    question_id: str
    category: str
    turns: tuple[str, ...]
    reference: tuple[str, ...] | None = None
    flags: tuple[str, ...] = ()


def _texts(row: Row, key: str) -> tuple[str, ...]:
    """A list of texts; the ValueError says what is wrong with it."""
    value = row[key]
    if not isinstance(value, list) or not value or not all(isinstance(text, str) and text.strip() for text in value):
        raise ValueError(f"{key}: a list of texts that are not empty is expected")
    return tuple(value)


def _text(row: Row, key: str) -> str:
    if not isinstance(row[key], str) or not row[key].strip():
        raise ValueError(f"{key}: a text that is not empty is expected")
    return str(row[key])


def _inline_reference(row: Row) -> tuple[str, ...] | None:
    """The reference in the question itself. FastChat's file leaves some turns empty there: then it is none."""
    value = row.get("reference")
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError("reference: a list of texts is expected")
    return tuple(value) if all(text.strip() for text in value) else None


def _mt_bench(row: Row, references: dict[str, tuple[str, ...]]) -> Question:
    turns = _texts(row, "turns")
    name = str(row["question_id"])
    published = references.get(name)
    guided = row.get("category") in REFERENCE_CATEGORIES
    reference = (published or _inline_reference(row)) if guided else None
    if reference is not None and len(reference) < len(turns):
        raise ValueError(f"reference: {len(reference)} answers to {len(turns)} turns")
    flags = (WRONG_REFERENCE,) if published and name in WRONG_REFERENCES else ()
    return Question(name, _text(row, "category"), turns, reference, flags)


def _arena_hard(row: Row, references: dict[str, tuple[str, ...]]) -> Question:
    if "turns" in row:
        if not isinstance(row["turns"], list) or len(row["turns"]) != 1:
            raise ValueError("turns: a list of one {content: text} is expected")
        return Question(_text(row, "question_id"), _text(row, "cluster"), (_text(row["turns"][0], "content"),))
    return Question(_text(row, "uid"), _text(row, "cluster"), (_text(row, "prompt"),))


def _ultrafeedback(row: Row, references: dict[str, tuple[str, ...]]) -> Question:
    return Question(_text(row, "prompt_id"), "ultrafeedback", (_text(row, "prompt"),))


READERS = {"mt_bench": _mt_bench, "arena_hard": _arena_hard, "ultrafeedback": _ultrafeedback}


def load_references(path: Path) -> dict[str, tuple[str, ...]]:
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
    references = load_references(Path(settings.references)) if settings.references else {}
    rows = load_rows(settings.questions, derive_seed(seed, "benchmark", settings.kind))
    where = settings.questions.path or f"{settings.questions.hub} {settings.questions.split}"
    read = READERS[settings.kind]
    questions = []
    for number, row in enumerate(rows, 1):
        try:
            questions.append(read(row, references))
        except KeyError as error:
            raise UserError(
                f"{where}:{number}: no {error.args[0]}: a {settings.kind} question needs it: mend the line"
            ) from None
        except (ValueError, TypeError) as error:
            raise UserError(f"{where}:{number}: {error}: mend the line") from None
    twice = [name for name, count in Counter(question.question_id for question in questions).items() if count > 1]
    if twice:
        raise UserError(f"{where}: question {twice[0]} occurs twice: answers are matched by it, remove one")
    return questions


def temperature(settings: BenchmarkSettings, question: Question) -> float:
    """What a question is answered at: the config's temperature, else the protocol's own."""
    if settings.temperature is not None:
        return settings.temperature
    return MT_BENCH_TEMPERATURES.get(question.category, 0.0) if settings.kind == "mt_bench" else 0.0


def parse_benchmarks(texts: list[str]) -> dict[str, BenchmarkSettings]:
    """NAME=JSON arguments (or NAME=FILE.yaml#section)."""
    benchmarks = {}
    for text in texts:
        name, found, settings = text.partition("=")
        if not found or not name:
            raise UserError(f"--benchmark {text}: write it as NAME=JSON or NAME=FILE.yaml#benchmarks.NAME")
        benchmarks[name] = load_settings(settings, BenchmarkSettings)
    return benchmarks
