"""The gold judge reads real judge prompts, ours and FastChat's, and its biases have the configured effect."""

import json
import urllib.parse
import urllib.request

import pytest

from eval.benchmarks import Question, find
from eval.judging.gold_judge import judge, parse_judge_prompt, serving
from eval.judging.prompts import pair_messages, single_messages
from eval.protocols.templates import load_templates
from eval.protocols.verdicts import five_label, pair_label, rating, verdict
from salsa.config.judge import Judge
from salsa.world.gold import compose, gold_reward

PLAIN = Judge(kind="gold", model="gold-judge")
TURNS = ("Write a line that names the red hat and blue cup.", "Now say only the last one.")
QUESTION = Question("1", "writing", TURNS)
GOOD = ["Sure! red hat, blue cup. Happy to help.", "Sure! blue cup. Happy to help."]
BAD = ["pink ball, grey key.", "red hat. I think this is right."]


def text(messages) -> str:
    return "\n\n".join(message["content"] for message in messages)


@pytest.fixture(params=["ours", "FastChat's"])
def templates(request):
    if request.param == "ours":
        return load_templates(None)
    return load_templates(str(request.getfixturevalue("shared_data") / "mt_bench/judge_prompts.jsonl"))


@pytest.mark.parametrize("reference", [None, ("red hat, blue cup.", "blue cup.")])
@pytest.mark.parametrize("turn", [1, 2])
def test_questions_and_answers_are_found_in_any_judge_prompt(templates, turn, reference):
    question = Question("1", "math", TURNS, reference)
    asked = parse_judge_prompt(text(pair_messages(find("mt_bench"), templates, question, turn, GOOD, BAD)))
    assert asked.turns == list(TURNS[:turn])
    assert asked.answers == [GOOD[turn - 1], BAD[turn - 1]]
    single = parse_judge_prompt(text(single_messages(find("mt_bench"), templates, question, turn, GOOD)))
    assert single.turns == list(TURNS[:turn])
    assert single.answers == [GOOD[turn - 1]]


def test_verdicts_follow_the_gold_reward():
    templates = load_templates(None)

    def said_of(kind, first, second, settings=PLAIN):
        said = judge(text(pair_messages(find(kind), templates, QUESTION, 1, [first], [second])), settings)
        return verdict((five_label if kind == "arena_hard" else pair_label)(said))

    assert said_of("mt_bench", GOOD[0], BAD[0]).side == "A"
    assert said_of("mt_bench", BAD[0], GOOD[0]).side == "B"
    assert said_of("mt_bench", GOOD[0], GOOD[0]).side == "tie"
    assert said_of("arena_hard", GOOD[0], BAD[0]) == ("A", True)
    slightly = compose(("red hat", "blue cup"), closing=False)
    assert said_of("arena_hard", GOOD[0], slightly) == ("A", False)
    biased = PLAIN.model_copy(update={"position_bias": 0.5})
    assert said_of("mt_bench", slightly, GOOD[0], biased).side == "A"
    for answer in (GOOD[0], slightly, BAD[0]):
        said = rating(judge(text(single_messages(find("mt_bench"), templates, QUESTION, 1, [answer])), PLAIN))
        assert said == pytest.approx(1 + 9 * gold_reward(TURNS[:1], answer), abs=0.051)


def test_noise_is_a_function_of_the_prompt():
    noisy = PLAIN.model_copy(update={"noise": 10.0})
    templates = load_templates(None)
    said = []
    for n in range(40):
        prompt = text(pair_messages(find("mt_bench"), templates, QUESTION, 1, [f"hat {n}"], [f"cup {n}"]))
        assert judge(prompt, noisy) == judge(prompt, noisy)
        said.append(pair_label(judge(prompt, noisy)))
    assert {"A", "B"} <= set(said)


def test_real_questions_are_judged(shared_data):
    from eval.benchmarks import load_questions
    from salsa.config.sections import BenchmarkSettings, DataSource

    templates = load_templates(None)
    for kind, file in (("mt_bench", "mt_bench/question.jsonl"), ("arena_hard", "arena_hard/question.v0.1.orig.jsonl")):
        source = DataSource(path=str(shared_data / file))
        for question in load_questions(BenchmarkSettings(kind=kind, questions=source, max_new_tokens=8), 1):
            asked = parse_judge_prompt(text(pair_messages(find(kind), templates, question, 1, ["one"], ["two"])))
            assert asked is not None
            assert asked.answers == ["one", "two"]


def test_gold_judge_over_http():
    with serving(PLAIN, port=0) as url:
        with urllib.request.urlopen(f"{url}/models") as reply:
            assert json.load(reply)["data"][0]["id"] == "gold-judge"
        body = json.dumps({"messages": [{"role": "user", "content": "hello"}]}).encode()
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(urllib.request.Request(f"{url}/chat/completions", body))


def test_port_in_use_is_one_line(command):
    with serving(PLAIN, port=0) as url:
        port = urllib.parse.urlsplit(url).port
        settings = json.dumps({"kind": "gold", "model": "gold-judge"})
        status, said = command("eval", "gold-judge", "--settings", settings, "--port", port)
    assert (status, said.count("\n")) == (1, 1)
    assert f"--port {port}: cannot listen there (Address already in use)" in said
