"""Estimated costs of judging, compared with the actual ones."""

import json
import random
import re
import sys

import pytest

from eval.__main__ import COMMANDS
from salsa.runtime.command import main
from salsa.runtime.jsonl import read_jsonl, write_jsonl
from salsa.world.samples import arena_hard_questions
from tests.eval.judge_server import Answer, chat
from tests.eval.judging_case import GOLD, answers, right, wrong

PRICES = {"input_price": 2.5, "output_price": 10.0}


@pytest.fixture
def estimate(tmp_path, monkeypatch, capsys):
    """estimate(stage, kind, questions, judge) -> the numbers of each printed line, and the text."""

    def run(stage, kind, questions, judge) -> tuple[dict[str, list[float]], str]:
        write_jsonl(tmp_path / "questions.jsonl", questions)
        for policy, write in (("good", right), ("bad", wrong)):
            (tmp_path / policy).mkdir(exist_ok=True)
            write_jsonl(tmp_path / policy / "bench.jsonl", answers(questions, write))
        path = str(tmp_path / "questions.jsonl")
        benchmark = json.dumps({"kind": kind, "questions": {"path": path}, "max_new_tokens": 8})
        which = ["--pair", "good", "bad"] if stage == "judge" else ["--policy", "good"]
        arguments = ["--generations", tmp_path, *which, "--benchmark", f"bench={benchmark}", "--seed", 1]
        arguments += ["--settings", json.dumps(judge), "--ledger", tmp_path / "ledger", "--estimate"]
        monkeypatch.setattr(sys, "argv", ["eval", stage, *map(str, arguments)])
        assert main("eval", COMMANDS) == 0
        text = capsys.readouterr().out
        found = {line.split()[0]: re.findall(r"\d[\d,]*(?:\.\d+)?", line) for line in text.splitlines()}
        return {name: [float(one.replace(",", "")) for one in ones] for name, ones in found.items()}, text

    return run


def test_estimate_makes_no_calls_and_is_right(cell, estimate, questions, flaky, tmp_path):
    def count(_, request):
        tokens = len(json.dumps(request)) // 5
        return Answer(200, chat("[[A]]", usage={"prompt_tokens": tokens, "completion_tokens": 40}))

    judge = flaky(count)
    settings = judge.settings(**PRICES, max_tokens=500, budget=50)
    said, _ = estimate("judge", "mt_bench", questions, settings)
    assert judge.count == 0 and not (tmp_path / "out.jsonl").exists()
    assert said["calls"] == [32, 0, 32]
    assert said["replies"][:2] == [32 * 300, 32 * 500]
    cell("mt_bench", questions, judge=settings)
    assert judge.count == 32
    lines = read_jsonl(tmp_path / "ledger/calls.jsonl")
    spent = sum(line["cost"] for line in lines)
    assert sum(line["usage"]["prompt_tokens"] for line in lines) < said["prompts"][1] and spent < said["cost"][1]
    again, _ = estimate("judge", "mt_bench", questions, settings)
    assert again["calls"] == [32, 32, 0] and again["cost"] == [0, 0]
    assert again["spent"] == [pytest.approx(spent, abs=1e-4), 50]
    # What the ledger has seen of this judge is what is expected of it.
    grades, text = estimate("grade", "mt_bench", questions, settings)
    assert grades["calls"] == [16, 0, 16] and grades["replies"][0] == 16 * 40
    assert "basis     as in 32 calls in the ledger" in text


def test_possible_follow_ups_count_towards_the_maximum(estimate):
    hard = list(arena_hard_questions(random.Random(2), 3))
    said, text = estimate("judge", "arena_hard", hard, {**GOLD, "max_tokens": 100})
    assert said["calls"] == [6, 0, 6, 6]
    assert said["replies"][:2] == [600, 1200]
    assert "cost      unknown: set judge.input_price and judge.output_price" in text
