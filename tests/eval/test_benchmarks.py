"""Questions from the published schemas, real files included; broken lines are named."""

import pytest

from eval.benchmarks import load_questions, parse_benchmarks, temperature
from salsa.errors import UserError
from salsa.sections import BenchmarkSettings, DataSource
from salsa.stage import write_jsonl


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
    "no turns": ("mt_bench", {"question_id": 1, "category": "math"}, "no turns: a mt_bench question needs it"),
    "empty turn": ("mt_bench", {"question_id": 1, "category": "math", "turns": ["a", " "]}, "turns: a list of texts"),
    "reference": (
        "mt_bench",
        {"question_id": 1, "category": "math", "turns": ["a", "b"], "reference": ["x"]},
        "reference: 1 answers to 2 turns",
    ),
    "no prompt": ("arena_hard", {"uid": "1", "cluster": "x"}, "no prompt: a arena_hard question needs it"),
    "two turns": ("arena_hard", {"question_id": "1", "turns": []}, "turns: a list of one"),
    "number": ("ultrafeedback", {"prompt_id": "1", "prompt": 3}, "prompt: a text that is not empty"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_line_is_named(name, tmp_path):
    kind, row, expected = BROKEN[name]
    good = {
        "mt_bench": {"question_id": 7, "category": "math", "turns": ["a"]},
        "arena_hard": {"uid": "7", "category": "x", "cluster": "x", "prompt": "a"},
        "ultrafeedback": {"prompt_id": "7", "prompt": "a"},
    }[kind]
    write_jsonl(tmp_path / "q.jsonl", [good, row])
    with pytest.raises(UserError, match=f"q.jsonl:2: {expected}.*mend the line"):
        load_questions(settings(kind, tmp_path / "q.jsonl"), 1)


def test_a_question_twice_is_refused(tmp_path):
    write_jsonl(tmp_path / "q.jsonl", [{"prompt_id": "1", "prompt": "a"}] * 2)
    with pytest.raises(UserError, match="question 1 occurs twice"):
        load_questions(settings("ultrafeedback", tmp_path / "q.jsonl"), 1)


def test_benchmark_arguments():
    with pytest.raises(UserError, match="write it as NAME=JSON"):
        parse_benchmarks(["mt_bench"])
