"""Rows of real schemas: which turns are taken, and which pairs say nothing."""

import pytest

from salsa.data import conversation, demonstration, load_rows, preference_pairs
from salsa.errors import UserError
from salsa.sections import DataSource
from salsa.stage import write_jsonl


def talk(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def pair(chosen: str, rejected: str, scores: tuple[float, float] = (2.0, 1.0)) -> dict:
    rows = {"chosen": talk("hi", chosen), "rejected": talk("hi", rejected)}
    return {"prompt": "hi", **rows, "score_chosen": scores[0], "score_rejected": scores[1]}


def test_ties_and_empty_and_equal_answers_are_dropped_and_counted():
    rows = [pair("a", "b"), pair("a", "b", (1, 1)), pair("a", "a"), pair("a", " "), pair("", "b")]
    kept, dropped = preference_pairs(rows)
    assert dropped == {"tied": 1, "equal": 1, "empty": 2}
    assert kept == [(0, talk("hi", "a"), talk("hi", "b"))]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"chosen": talk("hi", "a")}, "row 7: no `rejected` with a role and a content in each turn"),
        ({"chosen": talk("hi", "a"), "rejected": [{"role": "user"}]}, "row 7: no `rejected` with a role"),
        ({"chosen": talk("hi", "a"), "rejected": talk("ho", "b")}, "row 7: chosen and rejected do not answer the same"),
        ({"chosen": [], "rejected": []}, "row 7: chosen and rejected do not answer the same"),
    ],
)
def test_rows_of_another_schema_are_named(row, expected):
    with pytest.raises(UserError, match=expected):
        preference_pairs([row], "row", first=7)


def test_the_conversation_ends_with_the_last_user_turn_in_every_split():
    """_gen splits lack the last answer, _sft and _prefs hold it."""
    assert conversation({"messages": talk("a", "b", "c")}) == talk("a", "b", "c")
    assert conversation({"messages": talk("a", "b", "c", "d")}) == talk("a", "b", "c")
    assert conversation({"prompt": "a"}) == talk("a")
    assert conversation({"prompt": "a", "messages": []}) == talk("a")
    for row in ({}, {"prompt": None}, {"messages": [{"role": "system", "content": "x"}]}):
        with pytest.raises(UserError, match="row 3: (neither `messages` nor `prompt`|messages hold no user turn)"):
            conversation(row, "row 3")
    with pytest.raises(UserError, match="a demonstration needs `messages` that end with the assistant"):
        demonstration({"messages": talk("a")}, "row 1")


def test_a_limit_draws_rows_with_the_seed_in_the_files_order(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", [{"n": n} for n in range(50)])
    source = DataSource(path=str(tmp_path / "rows.jsonl"), limit=10)
    first, again, other = (load_rows(source, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert first == sorted(first, key=lambda row: row["n"])


def test_a_broken_line_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"n": 1}\n{"n": \n')
    with pytest.raises(UserError, match=r"rows\.jsonl:2: not JSON .*: mend or remove the line"):
        load_rows(DataSource(path=str(path)), 1)
    with pytest.raises(UserError, match=r"none\.jsonl: cannot read it"):
        load_rows(DataSource(path=str(tmp_path / "none.jsonl")), 1)
