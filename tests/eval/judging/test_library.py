"""Compare answers from a notebook."""

import asyncio

import pytest

from eval.judging.library import compare
from salsa.runtime.errors import UserError
from tests.eval.judging_case import GOLD, right, wrong


@pytest.fixture
def texts(questions):
    """Questions of two turns, and the answers of a good and a bad policy."""
    turns = [question["turns"] for question in questions]
    good, bad = ([[write(asked[: n + 1]) for n in range(len(asked))] for asked in turns] for write in (right, wrong))
    return turns, good, bad


def test_verdicts_equal_those_of_the_stage(cell, questions, texts, tmp_path):
    _, _, judgments = cell("mt_bench", questions)
    result = compare(*texts, GOLD, ledger=tmp_path / "notebook")
    assert [(row["points"], row["weight"]) for row in result.judgments] == [
        (row["points"], row["weight"]) for row in judgments
    ]
    points, weights = ([row[key] for row in judgments] for key in ("points", "weight"))
    assert result.win_rate.estimate == sum(points) / sum(weights)
    assert result.win_rate.n == len(questions) and result.calls > 0
    assert compare(*texts, GOLD, ledger=tmp_path / "notebook").calls == 0, "all calls are in the ledger"
    assert str(result).endswith(f"over {len(questions)} questions") and len(result.table()) == len(judgments)


def test_one_turn_equal_answers_and_swapped_sides(tmp_path):
    questions = ["What is three plus four?", "Name the colour of grass."]
    result = compare(questions, ["seven", "green"], ["seven", "blue"], GOLD, ledger=tmp_path)
    assert result.judgments[0]["flags"] == ["identical"]
    swapped = compare(questions, ["seven", "blue"], ["seven", "green"], GOLD, ledger=tmp_path)
    assert swapped.win_rate.estimate == pytest.approx(1 - result.win_rate.estimate)
    same = compare(questions, ["a", "b"], ["a", "b"], GOLD, ledger=tmp_path)
    assert same.win_rate.estimate == 0.5 and same.win_rate.low < 0.1 and same.calls == 0, "two questions say little"


def test_it_runs_in_a_notebooks_event_loop(texts, tmp_path):
    async def in_a_cell():
        return compare(*texts, GOLD, ledger=tmp_path)

    assert asyncio.run(in_a_cell()).win_rate == compare(*texts, GOLD, ledger=tmp_path).win_rate


def test_mistakes_are_named(tmp_path):
    with pytest.raises(UserError, match="1 answers of b to 2 questions: give one for each"):
        compare(["q", "r"], ["x", "y"], ["z"], GOLD, ledger=tmp_path)
    with pytest.raises(UserError, match="judge: modell: unknown key"):
        compare(["q"], ["x"], ["z"], {**GOLD, "modell": "m"}, ledger=tmp_path)
    with pytest.raises(UserError, match="benchmark kind mtbench: unknown"):
        compare(["q"], ["x"], ["z"], GOLD, protocol="mtbench", ledger=tmp_path)
