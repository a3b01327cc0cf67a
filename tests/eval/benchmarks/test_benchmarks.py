"""Questions from the published schemas and real files; broken lines are named; your own benchmarks."""

import hashlib
import re
from pathlib import Path

import pytest
import yaml

from eval.benchmarks import find, load_benchmark, load_benchmarks, load_questions, temperature
from salsa.config.config import load_config
from salsa.config.sections import BenchmarkSettings, DataSource
from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import read_jsonl, write_jsonl

ROOT = Path(__file__).parents[3]
HOWTO = ROOT / "docs/howto-benchmark.md"


def settings(kind: str, path, **keys) -> BenchmarkSettings:
    return BenchmarkSettings(kind=kind, questions=DataSource(path=str(path)), max_new_tokens=8, **keys)


def test_real_mt_bench(shared_data):
    folder = shared_data / "mt_bench"
    found = settings("mt_bench", folder / "question.jsonl", references=str(folder / "reference_gpt-4.jsonl"))
    questions = load_questions(found, 1)
    assert len(questions) == 80
    assert all(len(question.turns) == 2 for question in questions)
    with_reference = [question for question in questions if question.reference]
    assert {question.category for question in with_reference} == {"math", "reasoning", "coding"}
    assert len(with_reference) == 30
    assert sum("wrong_reference" in question.flags for question in questions) == 13
    heat = {question.category: temperature(found, question) for question in questions}
    assert heat["writing"] == 0.7
    assert heat["stem"] == 0.1
    assert heat["math"] == 0.0
    assert {temperature(found.model_copy(update={"temperature": 1.0}), question) for question in questions} == {1.0}


def test_real_arena_hard_is_the_same_in_both_schemas(shared_data):
    head, orig = (
        load_questions(settings("arena_hard", shared_data / f"arena_hard/question.v0.1.{name}.jsonl"), 1)
        for name in ("head", "orig")
    )
    assert len(head) == 500
    assert head == orig


BROKEN = {
    "no turns": (
        "mt_bench",
        {"question_id": 1, "category": "math"},
        "no turns, which a question of this benchmark needs",
    ),
    "empty turn": (
        "mt_bench",
        {"question_id": 1, "category": "math", "turns": ["a", " "]},
        "turns: expected a list of non-empty texts",
    ),
    "reference": (
        "mt_bench",
        {"question_id": 1, "category": "math", "turns": ["a", "b"], "reference": ["x"]},
        "reference: 1 answers to 2 turns",
    ),
    "no prompt": ("arena_hard", {"uid": "1", "cluster": "x"}, "no prompt, which a question of this benchmark needs"),
    "two turns": ("arena_hard", {"question_id": "1", "turns": []}, "turns: expected a list with one"),
    "number": ("ultrafeedback", {"prompt_id": "1", "prompt": 3}, "prompt: expected a non-empty text"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_line_is_named(name, tmp_path):
    kind, row, expected = BROKEN[name]
    good = {
        "mt_bench": {"question_id": 7, "category": "math", "turns": ["a"]},
        "arena_hard": {"uid": "7", "category": "x", "cluster": "x", "prompt": "a"},
        "ultrafeedback": {"prompt_id": "7", "prompt": "a"},
    }[kind]
    write_jsonl(tmp_path / "q.jsonl", [good, row])
    with pytest.raises(UserError, match=f"q.jsonl:2: {expected}.*fix the line"):
        load_questions(settings(kind, tmp_path / "q.jsonl"), 1)


def test_repeated_question_is_merged_and_conflicting_ids_are_refused(tmp_path, caplog):
    rows = [{"prompt_id": name, "prompt": prompt} for name, prompt in (("1", "a"), ("2", "b"), ("1", "a"))]
    write_jsonl(tmp_path / "q.jsonl", rows)
    caplog.set_level("INFO")
    found = load_questions(settings("ultrafeedback", tmp_path / "q.jsonl"), 1)
    assert [question.question_id for question in found] == ["1", "2"]
    assert "merged 1 repeated questions of 3" in caplog.text
    write_jsonl(tmp_path / "q.jsonl", [*rows, {"prompt_id": "2", "prompt": "c"}])
    with pytest.raises(UserError, match="q.jsonl:4: another question has the id 2"):
        load_questions(settings("ultrafeedback", tmp_path / "q.jsonl"), 1)


def test_benchmark_arguments():
    with pytest.raises(UserError, match="write it as NAME=JSON"):
        load_benchmark("mt_bench")
    name, benchmark = load_benchmark(f"mt={ROOT}/config/mini.yaml#benchmarks.mt_bench")
    assert (name, benchmark) == ("mt", load_benchmarks(f"{ROOT}/config/mini.yaml#benchmarks")["mt_bench"])
    with pytest.raises(UserError, match="mini.yaml#grid: not a mapping of names to settings"):
        load_benchmarks(f"{ROOT}/config/mini.yaml#grid")
    with pytest.raises(UserError, match=r"--benchmark mt: kind: required key is missing: add it \(and 2 more\)"):
        load_benchmark("mt={}")


def block(name: str) -> str:
    """A file from the how-to page."""
    found = re.search(rf"<!-- file: {re.escape(name)} -->\n```\w+\n(.*?)```", HOWTO.read_text(), re.DOTALL)
    return found[1]


def test_benchmark_of_the_howto_is_one_file_and_one_entry(cell, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "manuals.py").write_text(block("manuals.py"))
    [(name, entry)] = yaml.safe_load(block("config"))["benchmarks"].items()
    rows = [
        {"id": f"m{n}", "product": "kettle", "asked": f"Which colours has {n} {{answer_a}}?", "passage": "Red."}
        for n in range(5)
    ]
    write_jsonl(tmp_path / "manuals.jsonl", rows)
    chosen = BenchmarkSettings(**entry)
    questions = load_questions(chosen, 1)
    assert [question.question_id for question in questions] == ["m0", "m1", "m2", "m3", "m4"]
    assert temperature(chosen, questions[0]) == 0.3
    for policy, said in (("good", "Red, I think."), ("bad", "No idea at all.")):
        (tmp_path / policy).mkdir()
        lines = [
            {"question_id": row["id"], "turns": [{"user": row["asked"], "assistant": said}], "error": None}
            for row in rows
        ]
        write_jsonl(tmp_path / policy / f"{name}.jsonl", lines)
    status, said, judged = cell(entry["kind"], None, asked="manuals.jsonl", name=name)
    assert status == 0, said
    assert {row["template"] for row in judged} == {"the benchmark's own:manual"}
    assert {(row["points"], row["weight"]) for row in judged} <= {(n / 4, 1) for n in range(5)}
    asked = read_jsonl(tmp_path / "ledger/calls.jsonl")
    assert len(asked) == 10
    assert all("Red.\n[The End of Reference Answer]" in line["messages"][-1]["content"] for line in asked)


def test_config_accepts_the_howtos_benchmark(tmp_path):
    (tmp_path / "more.yaml").write_text(block("config"))
    assert load_config(ROOT / "config/mini.yaml", tmp_path / "more.yaml").benchmarks["manuals"].kind == "manuals.py"


OWN = {
    "": "it defines no BENCHMARK = … of class Benchmark",
    "BENCHMARK = 3": "it defines no BENCHMARK = … of class Benchmark",
    "def x(:": "SyntaxError: invalid syntax",
    "import nothing_like_it": "ModuleNotFoundError: No module named",
    "from eval.benchmarks import Benchmark\nBENCHMARK = Benchmark()": "TypeError: Can't instantiate abstract class",
    "from eval.benchmarks.arena_hard import ArenaHard as A\nBENCHMARK = b = A()\nb.grammar = 'x'": "grammar x: use",
}


@pytest.mark.parametrize("code", OWN)
def test_unknown_kind_is_one_line(code, tmp_path):
    (tmp_path / "own.py").write_text(code)
    with pytest.raises(UserError, match=re.escape(OWN[code])):
        find(str(tmp_path / "own.py"))
    with pytest.raises(UserError, match="none.py: cannot read it"):
        find(str(tmp_path / "none.py"))
    with pytest.raises(UserError, match="mt_bensh: unknown: use arena_hard, mt_bench, ultrafeedback, or your own .py"):
        find("mt_bensh")


def test_pinned_file_must_exist_with_its_digest(tmp_path):
    write_jsonl(tmp_path / "right.jsonl", [{"prompt_id": "1", "prompt": "a"}])
    pin = hashlib.sha256((tmp_path / "right.jsonl").read_bytes()).hexdigest()

    def chosen(name):
        path = str(tmp_path / name)
        return settings("ultrafeedback", path, download={path: {"url": "https://x.example/q.jsonl", "sha256": pin}})

    assert len(load_questions(chosen("right.jsonl"), 1)) == 1
    with pytest.raises(UserError) as failure:
        load_questions(chosen("none.jsonl"), 1)
    assert f"none.jsonl: no such file: download https://x.example/q.jsonl to it (sha256 {pin})" in str(failure.value)
    write_jsonl(tmp_path / "other.jsonl", [{"prompt_id": "1", "prompt": "b"}])
    with pytest.raises(UserError, match=f"other.jsonl: its sha256 is .*, not {pin}: remove it"):
        load_questions(chosen("other.jsonl"), 1)


def test_pins_of_the_full_grid_match_the_real_files(shared_data):
    """By digest only; nothing is downloaded."""
    pinned = {
        pin.sha256: path
        for benchmark in load_config(ROOT / "config/paper.yaml").benchmarks.values()
        for path, pin in benchmark.download.items()
    }
    names = ("mt_bench/question", "mt_bench/judge_prompts", "mt_bench/reference_gpt-4", "arena_hard/question.v0.1.orig")
    files = [shared_data / f"{name}.jsonl" for name in names]
    assert {hashlib.sha256(path.read_bytes()).hexdigest() for path in files} == set(pinned)
