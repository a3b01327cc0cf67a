"""Import the published tools' files: what is kept, repaired and dropped, and that their defects are not copied."""

import collections
import contextlib
import io
import json
import random

import pandas as pd
import pytest

from eval.ledger.index import INDEX
from salsa.runtime.jsonl import read_jsonl
from tests.eval.archive_case import ERROR, arena, arena_rows, battles, pair, rated, single, write


@pytest.fixture
def ledger(command, tmp_path):
    """ledger.read(format, rows, …) -> (status, standard error, summary); ledger.table() -> JSON rows."""

    class Case:
        folder = tmp_path / "ledger"

        def run(self, *arguments):
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                status, said = command("eval", *arguments, "--ledger", self.folder)
            return status, said, printed.getvalue()

        def read(self, form, rows, *more, name="archive.jsonl"):
            file = rows if hasattr(rows, "exists") else write(tmp_path / name, rows)
            return self.run("import", "--format", form, file, *more)

        def table(self):
            status, said, printed = self.run("table", "--format", "json")
            assert (status, said) == (0, "")
            return json.loads(printed)

    return Case()


def test_repeated_rows_count_once(ledger):
    """170 rows for 160 keys: calls repeated by hand and rows appended by a second run. The file's own mean is wrong."""
    rng = random.Random(1)
    rows = [rated(question, rng.randint(2, 9), turn=turn) for question in range(81, 161) for turn in (1, 2)]
    true_mean = sum(row["score"] for row in rows) / 160
    failed = [single(q, text=ERROR, score=-1, turn=1) for q in range(81, 86)]
    again = [dict(row) for row in rows[20:25]]
    status, _, summary = ledger.read("fastchat_single", [*failed, *rows, *again])
    assert status == 0
    assert "170 lines\nkept      160: 160 with a verdict\nrepaired  0" in summary
    assert (
        "       5  no reply, but another line has one (line 1, 2, 3, …)" in summary
        and "       5  duplicate (line" in summary
    )
    overall = next(row for row in ledger.table() if (row["turn"], row["category"]) == ("all", "all"))
    assert (overall["model"], overall["n"], overall["coverage"]) == ("m", 160, 1)
    assert overall["mean"] == pytest.approx(true_mean)
    assert abs(sum(row["score"] for row in [*failed, *rows, *again]) / 170 - true_mean) > 0.05


def test_failed_call_is_missing_and_no_score(ledger):
    rows = [rated(81, 8), single(82, text=ERROR, score=-1), single(83, text="No rating here.", score=-1)]
    _, _, summary = ledger.read("fastchat_single", rows)
    assert "kept      2: 1 with a verdict, 1 without a verdict" in summary
    assert "1  no reply: counts as missing (line 2)" in summary
    overall = ledger.table()[0]
    assert (overall["n"], overall["mean"], overall["coverage"]) == (1, 8, pytest.approx(1 / 3))
    assert not any(ERROR in line["text"] for line in read_jsonl(ledger.folder / "calls.jsonl"))
    # It came in later, by another file; and a failure takes nothing away.
    ledger.read("fastchat_single", [rated(82, 4)])
    ledger.read("fastchat_single", [single(81, text=ERROR, score=-1)])
    overall = ledger.table()[0]
    assert (overall["n"], overall["mean"]) == (2, 6)


@pytest.mark.parametrize(
    ("text", "stored", "mean"),
    [
        ("As in args[100] of the code. Rating: [[3]]", 100, 3),
        ("It reads args[100], I would not rate it.", 100, None),
        ("I give [[12]] of 20.", 12, None),
        ("Rating: [[8.5]]", 8, 8.5),
        ("Rating: [[6]]", -1, 6),
    ],
)
def test_score_that_contradicts_its_text_is_repaired(ledger, text, stored, mean):
    _, _, summary = ledger.read("fastchat_single", [single(text=text, score=stored)])
    assert "repaired  1: the tool's stored verdict differs from the text\n          line 1: stored" in summary
    assert ledger.table()[0]["mean"] == mean


def test_quoted_verdict_is_not_the_verdict(ledger):
    """FastChat takes [[A]] wherever it occurs first."""
    text = "A verdict of [[A]] would need more. My final verdict is: [[B]]"
    row = pair("A", "A") | {"g1_judgment": text, "g1_winner": "model_1"}
    _, _, summary = ledger.read("fastchat_pair", [row])
    assert "line 1: stored A, the text says B" in summary
    [found] = ledger.table()
    assert (found["model_a"], found["wins"], found["losses"], found["ties"]) == ("m", 0, 1, 0)


def fastchats_own(rows) -> dict:
    """Wins, losses and ties of model_1 as FastChat's show_result.py counts them."""
    frame = pd.DataFrame(rows)
    frame = frame[(frame["g1_winner"] != "error") & (frame["g2_winner"] != "error")]
    tie = (frame["g1_winner"] == "tie") | (frame["g1_winner"] != frame["g2_winner"])
    return {
        "n": len(frame),
        "wins": int(((frame["g1_winner"] == "model_1") & ~tie).sum()),
        "losses": int(((frame["g1_winner"] == "model_2") & ~tie).sum()),
        "ties": int(tie.sum()),
    }


def test_pairs_are_counted_like_fastchat_and_by_game(ledger):
    rng = random.Random(2)
    labels = ("A", "A", "B", "C", "no verdict")
    rows = [
        pair(rng.choice(labels), rng.choice(labels), question, turn=turn)
        for question in range(81, 121)
        for turn in (1, 2)
    ]
    ledger.read("fastchat_pair", rows)
    [found] = ledger.table()
    expected = fastchats_own(rows)
    assert {key: found[key] for key in expected} == expected
    assert found["adjusted_win_rate"] == pytest.approx((expected["wins"] + expected["ties"] / 2) / expected["n"])
    whole = [row for row in rows if "error" not in (row["g1_winner"], row["g2_winner"])]
    points = {"model_1": 1, "tie": 0.5, "model_2": 0}
    games = [points[row[key]] for row in whole for key in ("g1_winner", "g2_winner")]
    assert found["games_win_rate"] == pytest.approx(sum(games) / len(games))
    assert found["swap_consistency"] == pytest.approx(
        sum(row["g1_winner"] == row["g2_winner"] for row in whole) / len(whole)
    )
    assert found["coverage"] == pytest.approx(len(whole) / len(rows))
    assert found["low"] < found["adjusted_win_rate"] < found["high"]


def test_position_bias_of_16_in_75_is_measured(ledger):
    verdicts = [("A", "B")] * 57 + [("A", "A")] * 16 + [("B", "B")] * 2
    ledger.read("fastchat_pair", [pair(*games, question=n) for n, games in enumerate(verdicts)])
    [found] = ledger.table()
    assert found["swap_consistency"] == pytest.approx(57 / 75)
    assert found["first_place"] == pytest.approx((57 + 2 * 16) / 150)
    assert (found["wins"], found["ties"]) == (57, 18)


def test_swapped_pair_is_the_same_pair(ledger):
    rows = [pair("A", "B"), pair("A", "B", question=82, models=("n", "m")), pair("B", "A", models=("n", "m"))]
    _, _, summary = ledger.read("fastchat_pair", rows)
    assert "2  duplicate (line 3)" in summary
    [found] = ledger.table()
    assert (found["model_a"], found["n"], found["wins"], found["losses"]) == ("m", 2, 1, 1)


def weighted(rows) -> dict[str, float]:
    """Mean over the rows of battles."""
    points, counts = collections.Counter(), collections.Counter()
    for row in rows:
        points[row["model_b"]] += {"model_a": 0, "tie": 0.5, "model_b": 1}[row["winner"]]
        counts[row["model_b"]] += 1
    return {model: points[model] / counts[model] for model in counts}


@pytest.mark.parametrize("form", ["judgments", "battles", "shuffled battles"])
def test_arena_hard_win_rate_equals_bradley_terry_with_one_baseline(ledger, form):
    rows = arena_rows(3)
    expected = weighted(battles(rows))
    stored = rows if form == "judgments" else battles(rows)
    if form == "shuffled battles":
        random.Random(4).shuffle(stored)
    status, _, summary = ledger.read("arena_hard_battles", stored, "--judge", "somebody")
    assert status == 0
    assert "kept      120: " in summary
    found = {row["model"]: row for row in ledger.table()}
    assert found.keys() == expected.keys()
    for model, row in found.items():
        assert row["win_rate"] == pytest.approx(expected[model])
        assert row["bt_score"] == pytest.approx(expected[model], abs=1e-9)
        assert (row["baseline"], row["n"], row["coverage"]) == ("gpt-4-0314", 30, 1)
        assert row["judge"] == ("gpt-4-1106-preview" if form == "judgments" else "somebody")


def test_arena_hard_loses_only_the_game_without_a_verdict(ledger):
    rows = [arena("q1", "m", ["B>>A", "A>B"]), arena("q2", "m", ["B>A", "B>>A"])]
    rows[1]["games"][1] |= {"judgment": "I see [[A>B]] and [[B>A]].", "score": None}
    rows.append(arena("q3", "m", ["A=B", "A=B"]))
    rows[2]["games"][0] |= {"judgment": f"Hard to say.\n{ERROR}", "score": None}
    _, _, summary = ledger.read("arena_hard_battles", rows)
    assert "kept      5: 3 with a verdict, 1 with a tie, 1 without a verdict" in summary
    [found] = ledger.table()
    assert found["win_rate"] == pytest.approx((3 + 1 + 1 + 0.5) / (3 + 1 + 1 + 1))
    assert (found["n"], found["coverage"]) == (3, pytest.approx(4 / 6))


def test_repeated_evaluation_counts_once(ledger):
    old = battles([arena("q1", "m", ["A>>B", "B>>A"]), arena("q2", "m", ["A>B", "B>A"])])
    new = battles([arena("q1", "m", ["B>>A", "A>>B"])])
    _, _, summary = ledger.read("arena_hard_battles", [*old, *new])
    assert "kept      4: 4 with a verdict but no text" in summary
    assert "6  judged again further down (line 1, 2, 3, …)" in summary
    assert ledger.table()[0]["win_rate"] == pytest.approx(6 / 8)


def test_newer_arena_hard_format(ledger):
    game = {"score": "B>A", "judgment": {"answer": "[[B>A]]"}, "prompt": [{"role": "user", "content": "Who?"}]}
    row = {
        "uid": "u",
        "model": "m",
        "judge": "gpt-4.1",
        "baseline": "o3-mini",
        "category": "hard",
        "games": [game, None],
    }
    ledger.read("arena_hard_battles", [row])
    [found] = ledger.table()
    assert (found["baseline"], found["win_rate"], found["coverage"]) == ("o3-mini", 1, 0.5)


def test_second_import_changes_nothing(ledger, tmp_path):
    rows = [rated(81, 8), single(82, text=ERROR, score=-1), rated(81, 5), rated(81, 5), rated(83, 6, model="other")]
    ledger.read("fastchat_single", rows)
    ledger.read("arena_hard_battles", battles(arena_rows(5)), name="battles.jsonl")
    before = {path: path.read_bytes() for path in ledger.folder.iterdir()}
    ledger.read("fastchat_single", tmp_path / "archive.jsonl")
    ledger.read("arena_hard_battles", tmp_path / "battles.jsonl")
    assert {path: path.read_bytes() for path in ledger.folder.iterdir()} == before


def test_broken_lines_are_counted_and_wrong_format_is_refused(ledger, tmp_path):
    file = write(tmp_path / "archive.jsonl", [rated(81, 8), {"question_id": 82}, rated(83, 6)])
    file.write_text(file.read_text() + '[]\n\n{"question_id": 84, "mod')
    status, _, summary = ledger.read("fastchat_single", file)
    assert status == 0
    assert "5 lines\nkept      2" in summary
    assert "2  not JSON (line 4, 6)\n       1  no score (line 2)" in summary
    status, said, _ = ledger.read("fastchat_pair", file)
    assert status == 1
    assert said.count("\n") == 1
    assert f"{file}: no verdict in the format fastchat_pair (line 1: no model_1): give the right --format" in said


def test_torn_index_loses_only_its_last_line(ledger):
    ledger.read("fastchat_single", [rated(81, 8), rated(82, 2)])
    index = ledger.folder / INDEX
    index.write_bytes(index.read_bytes()[:-40])
    assert ledger.table()[0]["n"] == 1
    ledger.read("fastchat_single", [rated(81, 8), rated(82, 2)])
    assert ledger.table()[0]["n"] == 2
    assert len(read_jsonl(index)) == 2


def test_categories_come_from_mt_bench_or_the_question_file(ledger, tmp_path):
    rows = [rated(81, 2), rated(111, 4), rated(7, 9)]
    ledger.read("fastchat_single", rows)
    means = {row["category"]: row["mean"] for row in ledger.table() if row["turn"] == "all"}
    assert means == {"all": 5, "writing": 2, "math": 4}
    questions = [{"question_id": row["question_id"], "category": "own", "turns": ["Why?"]} for row in rows]
    ledger.read("fastchat_single", rows, "--questions", write(tmp_path / "questions.jsonl", questions))
    means = {row["category"]: row["mean"] for row in ledger.table() if row["turn"] == "all"}
    assert means == {"all": 5, "own": 5}


def test_categories_of_published_questions(ledger, shared_data):
    from eval.benchmarks.mt_bench import published_category

    for question in read_jsonl(shared_data / "mt_bench" / "question.jsonl"):
        assert published_category(str(question["question_id"])) == question["category"]
