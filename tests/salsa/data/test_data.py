"""Rows of real schemas: which turns are used, and which pairs are uninformative."""

import pytest
from datasets import Dataset

from salsa.config.sections import DataSource
from salsa.data.rows import Unusable, conversation, convert_rows, demonstration, load_rows, numbered_rows, preference
from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import write_jsonl


def talk(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def pair(chosen: str, rejected: str, scores: tuple[float, float] = (2.0, 1.0)) -> dict:
    rows = {"chosen": talk("hi", chosen), "rejected": talk("hi", rejected)}
    return {"prompt": "hi", **rows, "score_chosen": scores[0], "score_rejected": scores[1]}


BROKEN = {"role": "user", "content": None}
TOOL = {"role": "tool", "content": "{}"}


@pytest.mark.parametrize(
    ("take", "row", "reason", "text"),
    [
        (preference, pair("a", "b", (1, 1)), "tied", "both scores are the same"),
        (preference, pair("a", "a"), "equal", "are the same"),
        (preference, pair("a", " "), "empty", "a turn is empty"),
        (preference, pair("", "b"), "empty", "a turn is empty"),
        (
            preference,
            {"chosen": talk("hi", "a")},
            "malformed",
            "`rejected` is missing, or has a turn without role or text",
        ),
        (preference, {"chosen": talk("hi", "a"), "rejected": [{"role": "user"}]}, "malformed", "`rejected` is missing"),
        (preference, {"chosen": [], "rejected": []}, "malformed", "`chosen` is missing"),
        (preference, {"chosen": talk("hi", "a"), "rejected": talk("ho", "b")}, "mismatched", "different dialogues"),
        (
            preference,
            {"chosen": talk("hi"), "rejected": talk("ho")},
            "roles",
            "does not end with an assistant turn",
        ),
        (
            demonstration,
            {"messages": talk("a")},
            "roles",
            "does not end with an assistant turn: use a _sft split",
        ),
        (
            demonstration,
            {"messages": [*talk("a", "b"), TOOL]},
            "roles",
            "has the role 'tool'; known roles: system, user",
        ),
        (
            demonstration,
            {"messages": [BROKEN, *talk("a", "b")[1:]]},
            "malformed",
            "`messages` is missing, or has a turn without role",
        ),
        (demonstration, {"messages": "a"}, "malformed", "`messages` is missing"),
        (
            demonstration,
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
            "malformed",
            "is missing, or",
        ),
        (demonstration, {"messages": talk("a", "\u200b \n", "c")}, "roles", "does not end"),
        (conversation, {}, "malformed", "neither `messages` nor a text `prompt`"),
        (conversation, {"prompt": None}, "malformed", "neither"),
        (conversation, {"messages": [{"role": "system", "content": "x"}]}, "roles", "no user turn"),
        (conversation, {"prompt": " \n"}, "empty", "a turn is empty"),
    ],
)
def test_unusable_row_says_why(take, row, reason, text):
    with pytest.raises(Unusable, match=text) as caught:
        take(row)
    assert caught.value.reason == reason


def test_usable_row_is_found_among_others():
    rows = [pair("a", "a"), pair("a", "b"), {}]
    first, kept, last = convert_rows(preference, rows)
    assert kept == (talk("hi", "a"), talk("hi", "b"))
    assert (first.reason, last.reason) == ("equal", "malformed")


def test_conversation_ends_with_the_last_user_turn_in_every_split():
    """_gen splits lack the last answer; _sft and _prefs contain it."""
    assert conversation({"messages": talk("a", "b", "c")}) == talk("a", "b", "c")
    assert conversation({"messages": talk("a", "b", "c", "d")}) == talk("a", "b", "c")
    assert conversation({"messages": talk("a", "b", "c", " ")}) == talk("a", "b", "c")
    assert conversation({"prompt": "a"}) == talk("a")
    assert conversation({"prompt": "a", "messages": []}) == talk("a")


def test_dialogues_may_begin_with_the_system_or_the_assistant():
    for role in ("system", "assistant"):
        messages = [{"role": role, "content": "x"}, *talk("a", "b")]
        assert demonstration({"messages": messages}) == messages
        assert conversation({"messages": messages}) == messages[:2]


def test_limit_draws_rows_by_seed_in_file_order(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", [{"n": n} for n in range(50)])
    source = DataSource(path=str(tmp_path / "rows.jsonl"), limit=10)
    first, again, other = (load_rows(source, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert first == sorted(first, key=lambda row: row["n"])
    assert [number for number, _ in numbered_rows(source, 1)] == [row["n"] + 1 for row in first]


def test_broken_line_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"n": 1}\n{"n": \n')
    with pytest.raises(UserError, match=r"rows\.jsonl:2: not JSON .*: fix or remove the line"):
        load_rows(DataSource(path=str(path)), 1)
    with pytest.raises(UserError, match=r"none\.jsonl: cannot read it"):
        load_rows(DataSource(path=str(tmp_path / "none.jsonl")), 1)


def test_files_as_other_programs_write_them(tmp_path):
    """A byte order mark, Windows line ends, blank lines, NUL, a lone surrogate, no newline at the end."""
    path = tmp_path / "rows.jsonl"
    rows = [r'{"a": "\u00e4 ä"}', "", r'{"a": "x\u0000y"}', r'{"a": ["\ud83d", "\ud83d\ude00"]}', r'{"a": "\\ud83d"}']
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows).encode())
    found = [row["a"] for row in load_rows(DataSource(path=str(path)), 1)]
    assert found == ["ä ä", "x\0y", ["\N{REPLACEMENT CHARACTER}", "\N{GRINNING FACE}"], r"\ud83d"]
    path.write_bytes('{"a": 1}\n{"a": "ä"}\n'.encode("latin-1"))
    with pytest.raises(UserError, match=r"rows\.jsonl:2: not UTF-8 .*0xe4.*: convert the file or remove the line"):
        load_rows(DataSource(path=str(path)), 1)
    path.write_bytes(b'{"a": "x\x00y"}')
    with pytest.raises(UserError, match=r"rows\.jsonl:1: not JSON \(Invalid control character"):
        load_rows(DataSource(path=str(path)), 1)


def test_parquet_files_and_folders_are_read(tmp_path):
    rows = [{"messages": talk("a", "b"), "n": n} for n in range(5)]
    Dataset.from_list(rows[:3]).to_parquet(tmp_path / "hub" / "train-00000-of-00002.parquet")
    Dataset.from_list(rows[3:]).to_parquet(tmp_path / "hub" / "train-00001-of-00002.parquet")
    (tmp_path / "hub" / "README.md").write_text("a card")
    assert load_rows(DataSource(path=str(tmp_path / "hub")), 1) == rows
    assert load_rows(DataSource(path=str(tmp_path / "hub" / "train-00001-of-00002.parquet")), 1) == rows[3:]
    (tmp_path / "broken.parquet").write_text("PAR1, but no more")
    with pytest.raises(UserError, match=r"broken\.parquet: cannot read it as Parquet \(.*\): fix or replace it"):
        load_rows(DataSource(path=str(tmp_path / "broken.parquet")), 1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: no \.parquet files in this folder: name a JSONL file"):
        load_rows(DataSource(path=str(tmp_path / "empty")), 1)
