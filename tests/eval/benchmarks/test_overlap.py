"""Benchmark questions among training prompts are found, and no others."""

import json
import random

import pytest

from eval.benchmarks import Question
from eval.benchmarks.overlap import overlap
from salsa.runtime.jsonl import write_jsonl

WORDS = [f"word{i}" for i in range(400)]
FIRST, SECOND = " ".join(WORDS[:20]), " ".join(WORDS[20:40])


def question(name: str, *turns: str) -> Question:
    return Question(question_id=name, category="x", turns=turns)


def found(rows, *questions: Question):
    return overlap(rows, {"b": list(questions)})["b"]


def prompt(text: str) -> dict:
    return {"prompt": text}


def test_equality_ignores_case_space_and_punctuation():
    rows = [prompt("  WHAT is\nthree plus four "), {"messages": [{"role": "user", "content": "no"}]}]
    assert found(rows, question("1", "What is three, plus four?"), question("2", "What is three plus five?")) == {
        "questions": 2,
        "equal": ["1"],
        "alike": [],
    }


@pytest.mark.parametrize(
    ("taken", "alike"),
    [(20, True), (19, True), (10, True), (9, False), (7, False)],
)
def test_alike_means_half_of_the_words_in_8_grams(taken, alike):
    """A prompt that starts like the question and continues differently: 10 of its 20 words count as half."""
    rows = [prompt(" ".join(["zero", *WORDS[:taken], "zero"]))]
    assert found(rows, question("1", FIRST))["alike"] == (["1"] if alike else [])


def test_words_from_different_rows_do_not_add_up():
    rows = [prompt(" ".join(WORDS[begin : begin + 9])) for begin in range(12)]
    assert found(rows, question("1", FIRST))["alike"] == []
    assert found([prompt(" and ".join(row["prompt"] for row in rows[:3]))], question("1", FIRST))["alike"] == ["1"]


def test_only_user_turns_count():
    messages = [{"role": role, "content": text} for role, text in (("user", FIRST), ("assistant", SECOND))]
    asked = question("1", FIRST, SECOND)
    assert found([{"messages": messages}], asked)["equal"] == ["1"], "the first turn counts"
    assert found([{"messages": messages}], question("2", SECOND))["equal"] == []
    messages[1] = {"role": "user", "content": f"please {SECOND}"}
    assert found([{"messages": messages}], question("2", SECOND))["alike"] == ["2"]


def test_index_agrees_with_a_quadratic_search():
    """Random texts over a small vocabulary."""
    rng = random.Random(1)
    texts = [[rng.choice("ab") for _ in range(rng.randint(5, 40))] for _ in range(60)]
    asked, trained = texts[:30], texts[30:]

    def covered(question, row):
        spans = [i for i in range(len(question) - 7) if any(question[i : i + 8] == row[j : j + 8] for j in range(33))]
        return len({place for i in spans for place in range(i, i + 8)})

    expected = [
        str(n) for n, text in enumerate(asked) if any(2 * covered(text, row) >= len(text) > 7 for row in trained)
    ]
    rows = [prompt(" ".join(row)) for row in trained]
    assert found(rows, *(question(str(n), " ".join(text)) for n, text in enumerate(asked)))["alike"] == expected
    assert expected, "the random texts must contain some"


def test_command_skips_unusable_rows(tmp_path, command):
    write_jsonl(tmp_path / "p.jsonl", [{"prompt": FIRST}, {"prompt": "hi"}])
    write_jsonl(tmp_path / "q.jsonl", [{"prompt": FIRST, "prompt_id": "7"}, {"prompt": "ho", "prompt_id": "8"}])
    source = {"kind": "prompts", "source": {"path": str(tmp_path / "p.jsonl")}, "max_length": 9, "seed": 1}
    asked = {"kind": "ultrafeedback", "questions": {"path": str(tmp_path / "q.jsonl")}, "max_new_tokens": 8}
    arguments = ("--sets", json.dumps({"ppo.prompts": source}), "--benchmarks", json.dumps({"uf": asked}), "--seed", 1)
    assert command("eval", "overlap", *arguments, "--out", tmp_path / "o.json")[0] == 0
    assert json.loads((tmp_path / "o.json").read_text()) == {
        "ppo.prompts": {"uf": {"questions": 2, "equal": ["7"], "alike": []}}
    }
    assert found([{}, prompt("a"), prompt(" ")], question("1", "a"))["equal"] == ["1"], (
        "rows that cannot be used are skipped"
    )
