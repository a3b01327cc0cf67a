"""The data of the report's sample browser."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.grid.layout import generation_file, judgment_file
from eval.report import samples
from eval.report.differing_words import differing_spans
from eval.report.run_ids import describe_replicates, policy_pairs
from eval.report.samples import NO_VERDICT, ORDERS_DISAGREE, browser_data, spread, verdict
from salsa.config.replicates import Replicate
from salsa.runtime.jsonl import read_jsonl, write_jsonl
from tests.eval.synthetic import GRID, QUESTIONS, write_results

WORDS = st.lists(st.sampled_from(["soup", "is", "not", "good", "\N{PILE OF POO}", "ünder"]), max_size=12)
SPACES = st.sampled_from([" ", "\n", "  ", "\t\n"])


@pytest.fixture
def results(tmp_path):
    return write_results(tmp_path / "results")


def data_of(results: Path, ledger: Path | None = None) -> dict[str, Any]:
    return browser_data(results, GRID, policy_pairs(results, GRID), ledger)


def without(text: str, spans: list[tuple[int, int]]) -> list[str]:
    """The words outside the spans."""
    for start, end in reversed(spans):
        text = text[:start] + " " + text[end:]
    return text.split()


@given(WORDS, WORDS, SPACES, SPACES)
def test_texts_are_equal_outside_their_differing_spans(first, second, space, other):
    a, b = space.join(first), other.join(second)
    of_a, of_b = differing_spans(a, b)
    assert without(a, of_a) == without(b, of_b)
    for text, spans in ((a, of_a), (b, of_b)):
        assert spans == sorted(spans) and all(start < end for start, end in spans)
        assert all(text[start:end] == text[start:end].strip() for start, end in spans)
    if first == second:
        assert not of_a and not of_b, "white space is no difference"


def test_differing_words_are_found():
    a, b = "the soup is a good reference", "the soup was a reference"
    of_a, of_b = differing_spans(a, b)
    assert [a[start:end] for start, end in of_a] == ["is", "good"]
    assert [b[start:end] for start, end in of_b] == ["was"]


def test_samples_are_spread_evenly():
    assert spread([{"n": n} for n in range(25)], 10) == [{"n": n} for n in (0, 2, 5, 7, 10, 12, 15, 17, 20, 22)]
    assert spread([{"n": 1}], 10) == [{"n": 1}]


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ("aa", "first wins"),
        ("bb", "second wins"),
        (("tie", "tie"), "tie"),
        ("ab", ORDERS_DISAGREE),
        (("a", "tie"), ORDERS_DISAGREE),
        (("a", "unparsed"), NO_VERDICT),
        (("refused", "refused"), NO_VERDICT),
        ("", NO_VERDICT),
    ],
)
def test_verdict_of_both_orders(outcomes, expected):
    assert verdict({"games": [{"outcome": outcome} for outcome in outcomes]}) == expected


def test_all_judgments_with_answers_and_places(results):
    data = data_of(results)
    assert len(data["samples"]) == data["judgments"] == 2 * 2 * 2 * 3 * QUESTIONS
    assert len({sample["id"] for sample in data["samples"]}) == len(data["samples"])
    for sample in data["samples"]:
        pair = data["pairs"][sample["pair"]]
        [turn] = sample["turns"]
        policies = pair["policies"]
        place = (pair["comparison"], pair["model"], sample["benchmark"], policies["a"], policies["b"])
        assert sample["id"].startswith("/".join(place))
        for side in "ab":
            assert data["texts"][turn[side]] == f"<script>{policies[side]}</script> | hi"
            [(start, end)] = turn["differ"][side]
            assert data["texts"][turn[side]][start:end] == f"<script>{policies[side]}</script>"
        assert [game["text"] for game in sample["games"]] == [None, None]
    assert data["pairs"][0]["sft"] == "sft-1: 1, sft-2: 2"


def test_identical_answers_are_counted_and_judge_texts_come_from_the_ledger(results, tmp_path):
    file = judgment_file(results, "one-mini", "mt_bench", "salsa_vs_ppo", "")
    rows = read_jsonl(file)
    rows[0]["flags"] = ["identical"]
    rows[1]["games"][0]["call"] = "k"
    write_jsonl(file, rows)
    (tmp_path / "ledger").mkdir()
    call = {"key": "k", "judge": "j", "outcome": "answered", "text": "[[A]] \x1b[2J", "cost": None, "messages": []}
    (tmp_path / "ledger/calls.jsonl").write_text(json.dumps(call) + "\n")
    data = data_of(results, tmp_path / "ledger")
    assert (data["identical"], len(data["samples"])) == (1, data["judgments"])
    first = data["samples"][0]
    assert first["id"].endswith("/0/1") and "s2" in first["id"], "the second seed's pair on question 0"
    assert data["texts"][first["games"][0]["text"]] == r"[[A]] \u001b[2J" and first["games"][1]["text"] is None


def test_an_answer_that_is_missing_is_none(results):
    file = generation_file(results, "one-mini", "ppo-s1", "mt_bench")
    rows = read_jsonl(file)
    rows[0]["turns"] = []
    write_jsonl(file, rows)
    [turn] = data_of(results)["samples"][0]["turns"]
    assert turn["b"] is None and turn["a"] is not None and turn["user"] is not None
    assert turn["differ"] == {"a": [], "b": []}


def test_the_page_stays_within_its_limits(results, monkeypatch):
    monkeypatch.setattr(samples, "SAMPLES", 120)
    data = data_of(results)
    cells = 2 * 2 * 3
    assert len(data["samples"]) == 120 and data["judgments"] == cells * 2 * QUESTIONS
    monkeypatch.setattr(samples, "CHARACTERS", 10)
    data = data_of(results)
    assert len(data["samples"]) == cells, "one of each cell is the least"


def test_replicates_in_words():
    def draws(*seeds: int) -> Replicate:
        return Replicate(sft={"sft-1": 1}, rl_seeds=list(seeds))

    assert describe_replicates({"": draws(1, 2)}) == "1 replicate, RL seeds 1, 2"
    assert describe_replicates({"r1": draws(1), "r2": draws(1)}) == "2 replicates, RL seed 1"
    both = {"r1": draws(1), "r2": draws(1, 2)}
    assert describe_replicates(both) == "2 replicates: r1 with RL seed 1; r2 with RL seeds 1, 2"
