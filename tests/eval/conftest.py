import contextlib
import json
import random

import pytest

from salsa.runtime.jsonl import read_jsonl, write_jsonl
from salsa.world.samples import mt_bench_questions
from tests.eval.judging_case import GOLD, KEY, Flaky, answers, right, wrong


@pytest.fixture
def cell(tmp_path, command):
    """cell(kind, questions, writers, judge settings, …) -> (status, standard error, judgments).

    Without questions, the answers stay as the test left them.
    """

    def run(kind, questions, writers=None, judge=GOLD, out="out", asked=None, name="bench", **keys):
        file = tmp_path / "questions.jsonl"
        if questions is None:
            writers = {}
        else:
            write_jsonl(file, questions)
            writers = writers or {"good": right, "bad": wrong}
        for policy, write in writers.items():
            (tmp_path / policy).mkdir(exist_ok=True)
            write_jsonl(tmp_path / policy / f"{name}.jsonl", answers(questions, write))
        benchmark = {"kind": kind, "questions": {"path": str(asked or file)}, "max_new_tokens": 8, **keys}
        arguments = [
            "--generations",
            tmp_path,
            "--pair",
            "good",
            "bad",
            "--benchmark",
            f"{name}={json.dumps(benchmark)}",
        ]
        arguments += ["--settings", json.dumps(judge), "--seed", 1, "--ledger", tmp_path / "ledger"]
        status, said = command("eval", "judge", *arguments, "--out", tmp_path / f"{out}.jsonl")
        found = tmp_path / f"{out}.jsonl"
        return status, said, read_jsonl(found) if found.exists() else None

    return run


@pytest.fixture
def questions():
    return list(mt_bench_questions(random.Random(1), 1))


@pytest.fixture
def flaky(monkeypatch):
    monkeypatch.setenv("TEST_JUDGE_KEY", KEY)
    with contextlib.ExitStack() as started:
        yield lambda spoil: started.enter_context(Flaky(spoil))
