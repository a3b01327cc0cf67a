"""Verdicts; each defect of the published tools that is known to us is a test here."""

import pytest

from eval.benchmarks import Question
from eval.prompts import load_templates, pair_messages, single_messages
from eval.verdicts import Verdict, five_verdict, pair_verdict, rating


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Both are fine. [[C]]", Verdict("tie")),
        ("My verdict: [[B]]", Verdict("B")),
        ("A [[A]] would need a better proof than this, so [[B]]", Verdict("B")),
        ("[A]", None),
        ("[[D]] and [[AB]]", None),
        ("[[7]]", None),
        ("", None),
    ],
)
def test_pair_verdicts(text, expected):
    assert pair_verdict(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[A>>B]]", Verdict("A", True)),
        ("[[B>A]]", Verdict("B", False)),
        ("[[A=B]]", Verdict("tie", False)),
        ("At first [[A>B]], but on reflection [[B>>A]]", Verdict("B", True)),
        ("[[A]]", None),
        ("A>>B", None),
    ],
)
def test_five_labels(text, expected):
    assert five_verdict(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Rating: [[7]]", 7.0),
        ("Rating: [[8.5]]", 8.5),
        ("it reads args[100] and a[[1]][0] there. Rating: [[6]]", 6.0),
        ("it reads args[100]", None),
        ("[[100]]", None),
        ("[[0]]", None),
        ("Rating: 9", None),
    ],
)
def test_ratings(text, expected):
    assert rating(text) == expected


QUESTION = Question("1", "writing", ("Say {answer_b}.", "Again?"))


def test_texts_that_look_like_places_stay_as_they_are():
    """Filled in several passes, {answer_b} in a question would show the other assistant's answer."""
    first, second = ["I am {answer_b} and {question}", "x"], ["SECRET", "y"]
    text = pair_messages(load_templates(None), "mt_bench", QUESTION, 1, first, second)[-1]["content"]
    assert "I am {answer_b} and {question}" in text
    assert "Say {answer_b}." in text
    assert text.count("SECRET") == 1


def test_every_place_of_every_template_is_filled(shared_data):
    real = Question("101", "math", ("q1", "q2"), ("r1", "r2"))
    for path in (None, str(shared_data / "mt_bench/judge_prompts.jsonl")):
        templates = load_templates(path)
        for question in (QUESTION, real):
            for turn in (1, 2):
                asked = [
                    pair_messages(templates, "mt_bench", question, turn, ["a1", "a2"], ["b1", "b2"]),
                    single_messages(templates, question, turn, ["a1", "a2"]),
                ]
                for messages in asked:
                    user = messages[-1]["content"].replace("{answer_b}", "")
                    assert "{" not in user
                    assert ("r1" in user) == (question.reference is not None)
                    assert ("a2" in user) == (turn == 2)
        assert len(templates.sha256) == 64
    assert load_templates(None).sha256 != templates.sha256
