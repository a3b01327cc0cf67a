"""Tables of a ledger that our own stages filled, and how fast they are."""

import contextlib
import io
import json
import math
import os
import random
import stat
import subprocess
import sys
import time

import pytest

from salsa.runtime.jsonl import read_jsonl
from salsa.world.samples import arena_hard_questions
from tests.eval.archive_case import arena_rows, pair, rated, write
from tests.eval.judging_case import GOLD, answers, right, wrong

PROGRAM = (
    "import sys; from eval.__main__ import COMMANDS; from salsa.runtime.command import main\n"
    "sys.exit(main('eval', COMMANDS) or 9 * bool({'torch', 'openai', 'transformers'} & sys.modules.keys()))"
)


@pytest.fixture
def table(command, tmp_path):
    def run(*arguments):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            status, said = command("eval", "table", "--ledger", tmp_path / "ledger", *arguments)
        return status, said, printed.getvalue()

    return run


def rows_of(printed: str) -> list[dict]:
    return json.loads(printed)


def sometimes(turns: list[str]) -> str:
    return right(turns) if len(turns[0]) % 2 else wrong(turns)


def test_ledger_tables_agree_with_judgments(cell, questions, table, tmp_path):
    judge = {**GOLD, "position_bias": 0.3, "noise": 0.3}
    _, _, rows = cell("mt_bench", questions, {"good": sometimes, "bad": wrong}, judge)
    [found] = rows_of(table("--format", "json")[2])
    assert (found["model_a"], found["model_b"]) == (f"{tmp_path.name}/good", f"{tmp_path.name}/bad")
    assert found["judge"] == "gold-judge(position_bias=0.3, noise=0.3, tie_margin=0.02, strong_margin=0.3)"
    assert found["n"] == len(rows) == 16
    assert found["adjusted_win_rate"] == pytest.approx(sum(row["points"] for row in rows) / 16)
    assert found["ties"] == sum(row["points"] == 0.5 for row in rows) > 0
    before = (tmp_path / "ledger/items.jsonl").read_bytes()
    cell("mt_bench", questions, {"good": sometimes, "bad": wrong}, judge, out="again")
    assert (tmp_path / "ledger/items.jsonl").read_bytes() == before


def test_arena_hard_games_count_against_the_second_policy(cell, table):
    asked = list(arena_hard_questions(random.Random(1), 12))
    judge = {**GOLD, "position_bias": 0.8, "noise": 0.3}
    _, _, rows = cell("arena_hard", asked, {"good": sometimes, "bad": wrong}, judge)
    [found] = rows_of(table("--format", "json")[2])
    assert found["baseline"].endswith("/bad")
    rate = sum(row["points"] for row in rows) / sum(row["weight"] for row in rows)
    assert 0.5 < rate < 1
    assert found["win_rate"] == pytest.approx(rate)
    assert found["bt_score"] == pytest.approx(rate, abs=1e-9)
    asked = [row["consistent"] for row in rows if row["consistent"] is not None]
    assert 0 < len(asked) < len(rows), "equal answers make no call"
    assert found["swap_consistency"] == pytest.approx(sum(asked) / len(asked))
    assert sum(asked) < len(asked)


def test_grades_are_included_and_unanswered_ones_missing(cell, questions, table, command, tmp_path):
    cell("mt_bench", questions)
    rows = answers(questions, right)
    rows[0]["turns"] = rows[0]["turns"][:1]
    write(tmp_path / "good/bench.jsonl", rows)
    benchmark = {"kind": "mt_bench", "questions": {"path": str(tmp_path / "questions.jsonl")}, "max_new_tokens": 8}
    arguments = ["--generations", tmp_path, "--policy", "good", "--benchmark", f"bench={json.dumps(benchmark)}"]
    arguments += ["--settings", json.dumps(GOLD), "--seed", 1, "--ledger", tmp_path / "ledger"]
    assert command("eval", "grade", *arguments, "--out", tmp_path / "grades.jsonl")[0] == 0
    grades = read_jsonl(tmp_path / "grades.jsonl")
    found = rows_of(table("--format", "json")[2])[0]
    ratings = [row["rating"] for row in grades if row["rating"] is not None]
    assert (found["n"], len(grades), found["coverage"]) == (15, 16, 15 / 16)
    assert found["mean"] == pytest.approx(sum(ratings) / 15)


def test_benchmark_with_its_own_reader_stores_labels(cell, questions, table, tmp_path):
    kind = tmp_path / "own.py"
    kind.write_text(
        "from eval.benchmarks.mt_bench import MtBench\nfrom eval.protocols.verdicts import Verdict\n"
        "class Own(MtBench):\n    def read(self, text):\n        return Verdict('B' if '[[A]]' in text else 'A')\n"
        "BENCHMARK = Own()\n"
    )
    cell(str(kind), questions)
    [found] = rows_of(table("--format", "json")[2])
    assert (found["wins"], found["losses"]) == (0, 16), "the opposite of the grammar"


def test_rate_decided_by_length_is_flagged(command, table, caplog, tmp_path):
    """This judge prefers the longer answer, and m's are longer more often than not."""
    rng, rows = random.Random(1), []
    for question in range(200):
        more = rng.gauss(20, 20)
        wins = rng.random() < 1 / (1 + math.exp(-3 * math.tanh(more / 20)))
        rows.append(pair(*("AB" if wins else "BA"), question, lengths=(100 + round(more), 100)))
    with contextlib.redirect_stdout(io.StringIO()):
        file = write(tmp_path / "archive.jsonl", rows)
        assert command("eval", "import", "--format", "fastchat_pair", file, "--ledger", tmp_path / "ledger")[0] == 0
    [found] = rows_of(table("--format", "json")[2])
    assert found["lc_far"] and found["adjusted_win_rate"] > 0.7
    assert found["lc_low"] < 0.5 < found["lc_high"]
    assert "far from the raw one; length or gaming decides: mt_bench m n" in caplog.text
    assert "(far off)" in table()[2]


def test_tables_as_text(cell, questions, table):
    cell("mt_bench", questions)
    status, said, printed = table()
    assert (status, said) == (0, "")
    heading, _, titles, _, row, _, note = printed.splitlines()
    assert heading == "## bench, pair"
    assert titles.startswith("| model_a | model_b | n | wins | losses | ties | adjusted win rate | games win rate |")
    assert "| 16 | 16 | 0 | 0 | 1.000 [0.631, 1.000] | 1.000 [0.631, 1.000] | – | 1.000 | 0.500 | 1.000 |" in row
    assert note.startswith("Judge: gold-judge(position_bias=0, ") and " called 20" in note


def test_folder_that_is_no_ledger_is_one_line(cell, questions, table, tmp_path):
    status, said, _ = table()
    assert (status, said.count("\n")) == (1, 1)
    assert "ledger/items.jsonl: cannot read it (No such file or directory): python -m eval import, judge and" in said
    cell("mt_bench", questions)
    (tmp_path / "ledger/calls.jsonl").unlink()
    status, said, _ = table()
    assert (status, said.count("\n")) == (1, 1)
    assert "the call of question 81" in said and "copy a ledger as a whole folder" in said


def test_ten_thousand_verdicts_in_ten_seconds_from_a_read_only_folder(command, tmp_path):
    """13,000 verdicts of 20 models, by the command in its own process, without a key."""
    folder, models = tmp_path / "ledger", [f"model-{n}" for n in range(20)]
    turns = [(model, question, turn) for model in models for question in range(81, 161) for turn in (1, 2)]
    archives = {
        "fastchat_single": [rated(q, 1 + (7 * q + t + len(m)) % 10, model=m, turn=t) for m, q, t in turns],
        "fastchat_pair": [pair("ABC"[q % 3], "AB"[q % 2], q, ("base", m), t) for m, q, t in turns],
        "arena_hard_battles": arena_rows(1, models, 100),
    }
    for form, rows in archives.items():
        with contextlib.redirect_stdout(io.StringIO()):
            file = write(tmp_path / "archive.jsonl", rows)
            assert command("eval", "import", "--format", form, file, "--ledger", folder)[0] == 0
    for path in (*folder.iterdir(), folder):
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    arguments = ["table", "--ledger", folder, "--format", "json"]
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], env=environment, stdout=subprocess.PIPE)
    took = time.perf_counter() - begin
    folder.chmod(0o755)
    assert done.returncode == 0
    assert took < 10
    rows = rows_of(done.stdout)
    assert sum(row["n"] for row in rows if row.get("turn") == row.get("category") == "all") == 3200
    assert len([row for row in rows if "adjusted_win_rate" in row]) == 20
    assert len([row for row in rows if "bt_score" in row]) == 20
