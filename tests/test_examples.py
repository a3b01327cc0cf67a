"""The examples run, and stay short."""

import json
import runpy
import sys

import pytest

from salsa.runtime.jsonl import write_jsonl
from tests.documented import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.fixture
def example(monkeypatch, capsys, tmp_path):
    """example(name, *arguments) -> what it prints."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(ROOT / f"examples/{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_has_at_most_40_lines(path):
    assert len(path.read_text().splitlines()) <= 40


def test_average_and_train(example, llamas, tmp_path):
    example("average_checkpoints", *llamas, "--weights", 0.75, 0.25, "--out", "soup")
    printed = example(
        "train_with_your_reward", "--policy", llamas[0], "--reference", "soup", "--steps", 2, "--out", "p"
    )
    assert printed.count("reward") == 2
    record = json.loads((tmp_path / "p/run.json").read_text())
    assert record["inputs"]["reference_1"]["path"] == "soup"


def test_compare(example, tmp_path):
    rows = [{"question": "What is three plus four?", "a": "seven", "b": "eight"}] * 2
    write_jsonl(tmp_path / "answers.jsonl", rows)
    printed = example("compare_answers", "answers.jsonl", "--judge", ROOT / "config/mini.yaml#judge")
    assert "win rate of a against b: " in printed and "over 2 questions" in printed
