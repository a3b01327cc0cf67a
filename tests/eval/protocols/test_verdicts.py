"""Verdicts. Each known defect of the published tools has a test here."""

import io
import json
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.benchmarks import Question, find
from eval.judging.prompts import pair_messages, single_messages
from eval.protocols.reasoning import without_reasoning
from eval.protocols.templates import load_templates
from eval.protocols.verdicts import READERS, read, verdict
from salsa.runtime.jsonl import write_jsonl

LONG = "Assistant A lists five steps, " * 20

CASES = {
    "mt_bench_pair": [
        ("Both are fine. [[C]]", "tie", None),
        ("My verdict: [[B]]", "verdict", "B"),
        ("[[A]], because A is right. So once more: **[[A]]**", "verdict", "A"),
        # Substring tests in the order A, B, C took the first of these for A.
        ("A [[A]] would need a better proof than this. Final verdict: [[B]]", "verdict", "B"),
        ("At first I thought [[A]]. My final verdict is that assistant B is better: [[B]]", "verdict", "B"),
        ("## Final Verdict\n\n**[[A]]**\n\nA [[C]] is no option.", "verdict", "A"),
        ("[[B]] is my final decision, not [[A]].", "verdict", "B"),
        ("Not [[B]] but [[A]] (final)", "verdict", "A"),
        ("A [[A]] would need a better proof than this, so [[B]]", "unparsed", None),
        ("Final verdict: [[A]]. No: final verdict: [[B]]", "unparsed", None),
        (f"This is not final. {LONG} [[A]] {LONG} [[B]]", "unparsed", None),
        ("The final answer of A is right, whatever B says of it in its long text [[A]]; [[B]]", "unparsed", None),
        ("[A]", "unparsed", None),
        ("[[a]]", "unparsed", None),
        ("[[D]] and [[AB]]", "unparsed", None),
        ("[[7]]", "unparsed", None),
        ("[[A>B]]", "unparsed", None),
        ("x = table[[A]][0]", "unparsed", None),
        ("", "unparsed", None),
        ("I'm sorry, but I can't judge this.", "refused", None),
        ("I cannot assist with that request.", "refused", None),
        ("I'm sorry for A, but [[B]]", "verdict", "B"),
        ("$ERROR$", "failed", None),
        ("<think>A is nicer, [[A]]? No.</think>Assistant B wins. [[B]]", "verdict", "B"),
        ("<think>A is nicer, I would say [[A]] but let me", "unparsed", None),
        ("A is nicer, [[A]]? No.</think>\n\nAssistant B wins. [[B]]", "verdict", "B"),
        ("<think>[[A]]</think> <think>[[C]]</think> [[B]]", "verdict", "B"),
        ("<think>[[A]] quotes </think> of the answer</think>[[B]]", "verdict", "B"),
        ("[[B]] <think>or [[A]]", "unparsed", None),
        ("<think>[[A]]</think>I'm sorry, but I can't judge this.", "refused", None),
        ("[[ A ]]", "verdict", "A"),
        ("[[\tC ]]", "tie", None),
        (None, "failed", None),
    ],
    "arena_hard": [
        ("[[A>>B]]", "verdict", "A>>B"),
        ("[[B>A]]", "verdict", "B>A"),
        ("[[A=B]]", "tie", "A=B"),
        ("[[b>>a]]", "verdict", "B>>A"),
        ("[[A<B]]", "verdict", "B>A"),
        ("[[B<<A]]", "verdict", "A>>B"),
        ("[[b=a]]", "tie", "A=B"),
        ("[[B>A]] and so [[A<B]]", "verdict", "B>A"),
        ("At first [[A>B]]; my final verdict is: [[B>>A]]", "verdict", "B>>A"),
        ("My final verdict is tie: [[A=B]]", "tie", "A=B"),
        ("At first [[A>B]], but on reflection [[B>>A]]", "unparsed", None),
        ("[[A > B]]", "verdict", "A>B"),
        ("[[ b << a ]]", "verdict", "A>>B"),
        ("[[A > > B]]", "unparsed", None),
        ("[[A]]", "unparsed", None),
        ("[[A>A]]", "unparsed", None),
        ("[[A>>>B]]", "unparsed", None),
        ("A>>B", "unparsed", None),
    ],
    "mt_bench_single": [
        ("Rating: [[7]]", "verdict", 7.0),
        ("Rating: [[8.5]]", "verdict", 8.5),
        ("[[ 6 ]]", "verdict", 6.0),
        ("[[10]]", "verdict", 10.0),
        ("[[1]]", "verdict", 1.0),
        ("[[8]], that is Rating: [[8.0]]", "verdict", 8.0),
        # A fallback to [n] took the first number of quoted code for the rating.
        ("it reads args[100] and a[[1]][0] there. Rating: [[6]]", "verdict", 6.0),
        ("it reads args[100]", "unparsed", None),
        ("[[3]] for the first turn. Final rating: [[5]]", "verdict", 5.0),
        ("[[3]] for the first turn, [[5]] for the second", "unparsed", None),
        ("[[100]]", "unparsed", None),
        ("[[0]]", "unparsed", None),
        ("[[0.9]]", "unparsed", None),
        ("[[-3]]", "unparsed", None),
        ("[[7/10]]", "unparsed", None),
        ("Rating: 9", "unparsed", None),
        ("Rating: [9]", "unparsed", None),
    ],
}


@pytest.mark.parametrize(
    ("protocol", "text", "outcome", "value"), [(name, *case) for name, cases in CASES.items() for case in cases]
)
def test_only_the_requested_form_counts(protocol, text, outcome, value):
    assert read(protocol, text) == (outcome, value)


REASONING = [
    ("<think>", "</think>"),
    ("<thought>", "</thought>"),
    ("<thinking>", "</thinking>"),
    ("<reasoning>", "</reasoning>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>\n\n<|begin_of_solution|>"),
    ("<seed:think>", "</seed:think>"),
    ("<mm:think>", "</mm:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|open|>think<|sep|>", "<|close|>think<|sep|><|open|>response<|sep|>"),
    ("<|START_THINKING|>", "<|END_THINKING|><|START_RESPONSE|>"),
    ("<|channel>thought\n", "<channel|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("[unused16]", "[unused17]"),
    ("<|think|>", "<|end|><|begin|>assistant<|content|>"),
    ("<think>\n", "\n</think>\n<answer>\n"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>"),
    ("analysis", "assistantfinal"),
    ("Here is my thought process:", "Here is my response:"),
    ("Here's my thought process:\n", "\n\nHere's my response:\n"),
]


@pytest.mark.parametrize(("begin", "end"), REASONING)
def test_verdicts_in_reasoning_are_ignored(begin, end):
    """Marks with both halves, only the end (the beginning was in the prompt), and only the beginning."""
    thoughts = "We compare. [[A]] Final verdict: [[A]] "
    for text in (f"{begin}{thoughts}{end}B wins. [[B]]", f"{thoughts}{end}B wins. [[B]]"):
        assert read("mt_bench_pair", text) == ("verdict", "B")
        assert without_reasoning(without_reasoning(text)) == without_reasoning(text)
    assert read("mt_bench_pair", f"{begin}{thoughts}") == ("unparsed", None)


@pytest.mark.parametrize(
    "text", ["I think B. [[B]]", "In this analysis B wins: [[B]]", "analysis: B. [[B]]", "[x] [[B]]"]
)
def test_similar_words_are_not_reasoning_marks(text):
    assert without_reasoning(text) == text


@pytest.mark.parametrize("reason", ["length", "max_tokens", "MAX_TOKENS", "model_length"])
def test_text_that_reached_its_limit_is_cut(reason):
    for text in ("At first sight [[A]], however assistant B is", "Final verdict: [[B]]", ""):
        assert read("mt_bench_pair", text, reason) == ("cut", None)
        assert read("mt_bench_pair", text, "stop") == read("mt_bench_pair", text)


@pytest.mark.parametrize(
    ("label", "expected"),
    [("A", ("A", False)), ("C", ("tie", False)), ("A=B", ("tie", False)), ("A>>B", ("A", True)), ("B>A", ("B", False))],
)
def test_labels_of_positions(label, expected):
    assert verdict(label) == expected


@given(
    st.text(max_size=200),
    st.sampled_from(sorted(READERS)),
    st.text(alphabet="ABC<>=[] 0159.final verdict:", max_size=80),
)
def test_every_text_has_an_outcome(start, protocol, end):
    outcome, value = read(protocol, start + end)
    assert outcome in ("verdict", "tie", "unparsed", "refused")
    assert (value is not None) == (outcome == "verdict" or (outcome, value) == ("tie", "A=B"))


def test_reading_takes_linear_time():
    """Thousands of quoted forms, as from a judge that repeats itself."""
    begin = time.perf_counter()
    assert read("mt_bench_pair", "my final verdict of all of these: [[A]], not [[B]] " * 2000) == ("verdict", "A")
    assert time.perf_counter() - begin < 2


def test_parse_command(command, tmp_path, monkeypatch):
    """Lines stay as they were, with the verdict appended; a line without a text is named."""
    file = tmp_path / "texts.jsonl"
    write_jsonl(file, [{"id": n, "text": text} for n, (text, *_) in enumerate(CASES["arena_hard"])])
    monkeypatch.setattr(sys, "stdout", printed := io.StringIO())
    status, _ = command("eval", "parse", "--protocol", "arena_hard", file)
    expected = [
        {"id": n, "text": text, "outcome": outcome, "value": value}
        for n, (text, outcome, value) in enumerate(CASES["arena_hard"])
    ]
    assert status == 0 and [json.loads(line) for line in printed.getvalue().splitlines()] == expected
    write_jsonl(file, [{"text": "[[A]]"}, {"texts": "[[A]]"}])
    status, said = command("eval", "parse", "--protocol", "mt_bench_pair", file)
    assert status == 1 and said.startswith(f"error: {file}:2: no field `text` with a judge's text: add it")


QUESTION = Question("1", "writing", ("Say {answer_b}.", "Again?"))


def test_placeholders_in_texts_are_not_filled():
    """With several passes, {answer_b} in a question would show the other answer."""
    first, second = ["I am {answer_b} and {question}", "x"], ["SECRET", "y"]
    text = pair_messages(find("mt_bench"), load_templates(None), QUESTION, 1, first, second)[-1]["content"]
    assert "I am {answer_b} and {question}" in text
    assert "Say {answer_b}." in text
    assert text.count("SECRET") == 1


def test_every_placeholder_of_every_template_is_filled(shared_data):
    real = Question("101", "math", ("q1", "q2"), ("r1", "r2"))
    for path in (None, str(shared_data / "mt_bench/judge_prompts.jsonl")):
        templates = load_templates(path)
        for question in (QUESTION, real):
            for turn in (1, 2):
                asked = [
                    pair_messages(find("mt_bench"), templates, question, turn, ["a1", "a2"], ["b1", "b2"]),
                    single_messages(find("mt_bench"), templates, question, turn, ["a1", "a2"]),
                ]
                for messages in asked:
                    user = messages[-1]["content"].replace("{answer_b}", "")
                    assert "{" not in user
                    assert ("r1" in user) == (question.reference is not None)
                    assert ("a2" in user) == (turn == 2)
        assert len(templates.sha256) == 64
    assert load_templates(None).sha256 != templates.sha256
