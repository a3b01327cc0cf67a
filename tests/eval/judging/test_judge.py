"""Judge through the real command: protocol, ledger, endpoint failures, real questions."""

import json
import random

import pytest

from eval.benchmarks import find
from eval.judging.gold_judge import serving
from eval.judging.judge import outcome, points_and_weight
from eval.ledger.calls import read_calls
from eval.ledger.index import read_index
from eval.protocols.verdicts import Verdict
from eval.tables.ledger_aggregate import stored_value as said_of
from salsa.config.judge import Judge
from salsa.runtime.jsonl import read_jsonl, write_jsonl
from salsa.world.samples import arena_hard_questions
from tests.eval.judge_server import chat
from tests.eval.judging_case import GOLD, answers, right, wrong


def game(found: str, order: str = "ab", strong: bool = False) -> dict:
    return {"order": order, "outcome": found, "strong": strong}


@pytest.mark.parametrize(
    ("kind", "games", "expected"),
    [
        ("mt_bench", [game("a"), game("a")], (1.0, 1)),
        ("mt_bench", [game("b"), game("b")], (0.0, 1)),
        ("mt_bench", [game("a"), game("b")], (0.5, 1)),
        ("mt_bench", [game("a"), game("tie")], (0.5, 1)),
        ("ultrafeedback", [game("a"), game("unparsed")], (None, 0)),
        ("arena_hard", [game("a", strong=True), game("b")], (3.0, 4)),
        ("arena_hard", [game("a", strong=True), game("tie")], (3.5, 4)),
        ("arena_hard", [game("b", strong=True), game("b")], (0.0, 4)),
        ("arena_hard", [game("b", strong=True), game("refused")], (0.0, 3)),
        ("arena_hard", [game("unparsed"), game("refused")], (None, 0)),
        ("mt_bench", [], (None, 0)),
    ],
)
def test_points_by_protocol(kind, games, expected):
    assert points_and_weight(find(kind), games) == expected


def test_outcomes_name_policies_not_positions():
    assert outcome(Verdict("A"), "ab") == outcome(Verdict("B"), "ba") == "a"
    assert outcome(Verdict("B"), "ab") == outcome(Verdict("A"), "ba") == "b"
    assert outcome(Verdict("tie"), "ba") == "tie"


def test_the_better_policy_wins_every_question(cell, questions, tmp_path):
    status, _, rows = cell("mt_bench", questions)
    assert status == 0
    assert [(row["question_id"], row["turn"]) for row in rows] == [(str(n), t) for n in range(81, 89) for t in (1, 2)]
    assert {row["points"] for row in rows} == {1.0}
    assert all(row["consistent"] and row["a"] == "good" for row in rows)
    ledger = read_jsonl(tmp_path / "ledger/calls.jsonl")
    assert len(ledger) == 32
    assert all(line["outcome"] == "answered" and line["judge"].startswith("gold-judge(") for line in ledger)


def test_second_run_makes_no_calls_and_gives_the_same_bytes(cell, questions, tmp_path):
    cell("mt_bench", questions, out="one")
    cell("mt_bench", questions, out="two")
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    runs = [json.loads((tmp_path / f"{name}.run.json").read_text()) for name in ("one", "two")]
    assert [(run["calls"], run["calls_from_ledger"]) for run in runs] == [(32, 0), (0, 32)]


def test_transport_settings_do_not_change_the_run_id(cell, questions, tmp_path):
    """Another pace gives the same run id, so that results need not be remade."""
    cell("mt_bench", questions, out="one")
    cell("mt_bench", questions, judge={**GOLD, "concurrency": 3, "retries": 1, "timeout_seconds": 9}, out="two")
    one, two = (json.loads((tmp_path / f"{name}.run.json").read_text())["id"] for name in ("one", "two"))
    assert one == two


def test_gold_judge_with_other_settings_is_another_judge(cell, questions, tmp_path):
    cell("mt_bench", questions, out="one")
    _, _, rows = cell("mt_bench", questions, judge={**GOLD, "position_bias": 5.0}, out="two")
    assert json.loads((tmp_path / "two.run.json").read_text())["calls"] == 32
    assert not any(row["consistent"] for row in rows)


def replies(content: object, reason: str = "stop"):
    """A judge that always gives this reply."""
    return lambda *_: (200, chat("", choices=[{"finish_reason": reason, "message": {"content": content}}]))


@pytest.mark.parametrize(
    ("content", "reason", "outcomes"),
    [
        ("<think>A is nicer, [[A]]? No.</think>Assistant B wins. [[B]]", "stop", ["b", "a"]),
        ("<think>A is nicer, I would say [[A]] but let me", "length", ["cut", "cut"]),
        ("At first sight [[A]], however assistant B is", "length", ["cut", "cut"]),
        (None, "stop", ["failed", "failed"]),
        ([{"type": "text", "text": "B wins: [[B]]"}], "stop", ["b", "a"]),
        ("[[ A ]]", "stop", ["a", "b"]),
    ],
)
def test_replies_with_reasoning(cell, questions, flaky, tmp_path, caplog, content, reason, outcomes):
    """The judgments, and the same read from the ledger alone."""
    judge = flaky(replies(content, reason))
    status, _, rows = cell("mt_bench", questions, judge=judge.settings(failed_share=1))
    assert status == 0
    assert {tuple(game["outcome"] for game in row["games"]) for row in rows} == {tuple(outcomes)}
    missing = json.loads((tmp_path / "out.run.json").read_text())["games_without"]
    assert missing == ({} if outcomes[0] in "ab" else {outcomes[0]: 2 * len(rows)})
    assert ("cut at judge.max_tokens (2048)" in caplog.text) == (outcomes[0] == "cut")
    calls = read_calls(tmp_path / "ledger")
    values = {said_of(item, calls, "x") for item in read_index(tmp_path / "ledger")}
    assert values == {{"b": "B", "a": "A"}.get(outcomes[0])}
    for call in calls.values():
        assert (call["finish_reason"], call["text"]) == (
            reason,
            content if isinstance(content, str) else "B wins: [[B]]",
        )


def test_cut_reply_is_stored_and_repeated_only_with_another_limit(cell, questions, flaky, tmp_path):
    short = "At first sight [[A]], however"
    judge = flaky(
        lambda _, request: replies(short, "length")() if request["max_tokens"] < 99 else replies("So: [[B]]")()
    )
    for limit, calls in ((50, 32), (50, 32), (100, 64)):
        _, _, rows = cell("mt_bench", questions, judge=judge.settings(max_tokens=limit))
        assert judge.count == calls
    assert all([game["outcome"] for game in row["games"]] == ["b", "a"] for row in rows)


@pytest.mark.parametrize(
    ("first", "asked"), [("At first sight [[A>B]], but", 2), ("<think>At first sight [[A>B]], but", 1)]
)
def test_arena_hard_follows_up_on_a_cut_reply_unless_it_only_reasoned(cell, flaky, first, asked):
    def spoil(_, request):
        again = any(message["role"] == "assistant" for message in request["messages"])
        return replies("My final verdict is: [[B>A]]")() if again else replies(first, "length")()

    judge = flaky(spoil)
    hard = list(arena_hard_questions(random.Random(1), 1))[:1]
    _, _, [row] = cell("arena_hard", hard, judge=judge.settings())
    assert judge.count == 2 * asked
    assert [game["outcome"] for game in row["games"]] == (["b", "a"] if asked == 2 else ["cut", "cut"])


def test_equal_answers_are_a_free_tie(cell, questions, tmp_path):
    _, _, rows = cell("mt_bench", questions, {"good": right, "bad": right})
    assert {(row["points"], row["consistent"], tuple(row["flags"])) for row in rows} == {(0.5, None, ("identical",))}
    assert (tmp_path / "ledger/calls.jsonl").read_text() == ""


def test_position_bias_is_visible_and_cancels(cell, questions):
    """A judge that always prefers the first position: no consistency, and an adjusted win rate of one half."""
    slightly = {"good": right, "bad": lambda turns: right(turns).removesuffix(" Happy to help.")}
    _, _, rows = cell("mt_bench", questions, slightly, {**GOLD, "position_bias": 5.0})
    assert {row["points"] for row in rows} == {0.5}
    assert not any(row["consistent"] for row in rows)
    assert all([g["outcome"] for g in row["games"]] == ["a", "b"] for row in rows)


def test_real_questions_with_fastchats_prompts(cell, shared_data):
    folder = shared_data / "mt_bench"
    keys = {"references": str(folder / "reference_gpt-4.jsonl"), "judge_prompts": str(folder / "judge_prompts.jsonl")}
    writers = {"good": lambda turns: "Sure! Happy to help.", "bad": lambda turns: "No. " * 9}
    status, _, rows = cell("mt_bench", read_jsonl(folder / "question.jsonl"), writers, **keys)
    assert status == 0
    assert len(rows) == 160
    assert {row["points"] for row in rows} == {1.0}
    assert sum("wrong_reference" in row["flags"] for row in rows) == 26
    hard = read_jsonl(shared_data / "arena_hard/question.v0.1.orig.jsonl")[:40]
    status, _, rows = cell("arena_hard", hard, writers, out="hard")
    assert status == 0
    assert {(row["points"], row["weight"]) for row in rows} == {(6.0, 6)}


def test_temporary_failures_are_retried_without_a_trace(cell, questions, flaky, tmp_path):
    _, _, expected = cell("mt_bench", questions, out="calm")
    judge = flaky(lambda n, _: ((500, 429)[n % 2], {"error": {"message": "later"}}) if n % 3 == 0 else None)
    status, _, rows = cell("mt_bench", questions, judge=judge.settings(retries=8, concurrency=4))
    assert status == 0
    for row in [*rows, *expected]:
        # Which call of which judge it was.
        row["games"] = [{key: value for key, value in game.items() if key != "call"} for game in row["games"]]
    assert rows == expected
    assert "sk-very-secret" in judge.head.decode()
    assert not any("sk-very-secret" in path.read_text() for path in tmp_path.rglob("*.json*"))


def crash(*words: str):
    """An endpoint that always crashes on prompts with one of the words."""

    def spoil(_, request):
        if any(word in request["messages"][-1]["content"] for word in words):
            return 500, {"error": {"message": "CUDA error"}}

    return spoil


def test_prompt_that_always_fails_is_counted_and_the_run_continues(cell, questions, flaky, tmp_path, caplog):
    _, _, expected = cell("mt_bench", questions, out="calm")
    odd = questions[0]
    first = f"{odd['turns'][0]}\n\n[The Start of Assistant A's Answer]\n{right(odd['turns'][:1])}"
    judge = flaky(crash(first))
    settings = judge.settings(retries=1, concurrency=2, failed_share=0.05)
    status, said, rows = cell("mt_bench", questions, judge=settings)
    assert status == 0, said
    outcomes = [game["outcome"] for row in rows for game in row["games"]]
    assert outcomes.count("failed") == 1 and len(outcomes) == 32
    [row] = [row for row in rows if row["weight"] == 0]
    assert (row["question_id"], row["turn"]) == (str(odd["question_id"]), 1) and "call" not in row["games"][0]
    where = f"question {odd['question_id']}, turn 1, good before bad"
    assert f"judge m: HTTP 500 (CUDA error). 1 of 32 calls fail: {where}; they count as failed" in caplog.text
    record = json.loads((tmp_path / "out.run.json").read_text())
    assert record["failed"] == [{"of": where, "why": "HTTP 500 (CUDA error)"}]
    assert judge.count == 31 + 4, "two attempts, and two more in the second round"
    judge.spoil = lambda *_: None
    status, _, again = cell("mt_bench", questions, judge=settings, out="again")
    assert status == 0 and judge.count == 31 + 4 + 1, "a later run repeats only this call"
    assert [row["points"] for row in again] == [row["points"] for row in expected]


def test_too_many_failing_prompts_end_the_run_and_are_named(cell, questions, flaky):
    judge = flaky(crash(questions[3]["turns"][0]))
    status, said, rows = cell("mt_bench", questions, judge=judge.settings(retries=0, concurrency=1))
    assert status == 1 and rows is None
    [line] = [line for line in said.splitlines() if line.startswith("error:")]
    assert "HTTP 500 (CUDA error): wait, or lower judge.concurrency" in line
    where = f"question {questions[3]['question_id']}, turn 1, "
    assert line.endswith(f". 2 of 32 calls fail: {where}good before bad; {where}bad before good")
    status, said, _ = cell("mt_bench", questions, judge=judge.settings(retries=0, concurrency=1, failed_share=0))
    assert status == 1 and ". 1 of 32 calls fail: " in said
    status, _, rows = cell("mt_bench", questions, judge=judge.settings(retries=0, failed_share=0.13))
    assert status == 0 and sum(row["weight"] == 0 for row in rows) == 2, "both turns show the first question"


def test_run_resumes_after_the_judge_disappeared(cell, questions, flaky, tmp_path):
    judge = flaky(lambda n, _: (500, {"error": {"message": "gone"}}) if n > 10 else None)
    settings = judge.settings(retries=0, concurrency=1)
    status, said, rows = cell("mt_bench", questions, judge=settings)
    assert status == 1
    [line] = [line for line in said.splitlines() if line.startswith("error:")]
    assert "HTTP 500 (gone): wait, or lower judge.concurrency" in line
    assert "10 finished calls are kept in" in line
    assert rows is None
    lines = read_jsonl(tmp_path / "ledger/calls.jsonl")
    assert [line["outcome"] for line in lines].count("answered") == 10
    judge.count = -1000
    status, _, rows = cell("mt_bench", questions, judge=settings)
    assert status == 0
    assert judge.count == -1000 + 22, "only missing calls are made"
    assert {row["points"] for row in rows} == {1.0}


def test_unreachable_judge_is_one_line(cell, questions, monkeypatch):
    monkeypatch.setenv("TEST_JUDGE_KEY", "x")
    judge = {"kind": "endpoint", "model": "m", "base_url": "http://127.0.0.1:9/v1", "api_key_env": "TEST_JUDGE_KEY"}
    status, said, rows = cell("mt_bench", questions, judge={**judge, "retries": 0})
    assert status == 1
    errors = [line for line in said.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "judge m at http://127.0.0.1:9/v1: connection error (" in errors[0]
    assert "check judge.base_url and that it is running" in errors[0]
    assert "Traceback" not in said
    assert rows is None


def test_served_gold_judge_equals_the_built_in_one(cell, questions, monkeypatch):
    """Served by hand and used as an endpoint, it gives the same verdicts."""
    monkeypatch.setenv("TEST_JUDGE_KEY", "none")
    dials = {"position_bias": 0.7, "noise": 0.2}
    _, _, own = cell("mt_bench", questions, judge={**GOLD, **dials})
    with serving(Judge(**GOLD, **dials), port=0) as url:
        asked = {"kind": "endpoint", "model": "gold-judge", "base_url": url, "api_key_env": "TEST_JUDGE_KEY"}
        _, _, hosted = cell("mt_bench", questions, judge=asked, out="hosted")
    games = [[{**game, "call": None} for row in rows for game in row["games"]] for rows in (own, hosted)]
    assert games[0] == games[1]
    assert {game["outcome"] for game in games[0]} >= {"a", "b"}


def test_missing_key_names_the_variable(cell, questions, monkeypatch):
    monkeypatch.delenv("TEST_JUDGE_KEY", raising=False)
    judge = {"kind": "endpoint", "model": "m", "base_url": "http://127.0.0.1:9/v1", "api_key_env": "TEST_JUDGE_KEY"}
    status, said, _ = cell("mt_bench", questions, judge=judge)
    assert status == 1
    assert "the environment variable TEST_JUDGE_KEY is not set" in said


def test_refusals_and_unparsed_replies_lower_coverage(cell, questions, flaky):
    def spoil(_, request):
        said = json.dumps(request)
        if "greet" in said:
            return 400, {"error": {"message": "content policy"}}
        return (200, chat("I cannot decide: [A] or [B]?")) if "Add " in said else None

    status, _, rows = cell("mt_bench", questions, judge=flaky(spoil).settings())
    assert status == 0
    by_category = {row["category"]: (row["points"], row["weight"], row["games"][0]["outcome"]) for row in rows}
    assert by_category["roleplay"] == (None, 0, "refused")
    assert by_category["math"] == (None, 0, "unparsed")
    assert by_category["stem"] == (1.0, 1, "a")


def too_long(limit: int):
    """A judge that accepts prompts of at most so many characters."""

    def spoil(_, request):
        if len(request["messages"][-1]["content"]) > limit:
            return 400, {"error": {"message": "This model's maximum context length is 9 tokens"}}

    return spoil


def test_prompts_longer_than_the_judges_context_are_counted_and_retried_with_a_longer_one(
    cell, questions, flaky, tmp_path, caplog
):
    judge = flaky(too_long(600))
    status, _, rows = cell("mt_bench", questions, judge=judge.settings())
    assert status == 0
    over = [row for row in rows if any(game["outcome"] == "too_long" for game in row["games"])]
    assert 0 < len(over) < len(rows)
    assert all(row["weight"] == 0 and "call" not in row["games"][0] for row in over)
    games = sum(game["outcome"] == "too_long" for row in over for game in row["games"])
    assert json.loads((tmp_path / "out.run.json").read_text())["games_without"] == {"too_long": games}
    assert f"{len(rows) - len(over)} of {len(rows)} judgments have a verdict (games: {games} too long)" in caplog.text
    before = judge.count
    judge.spoil = too_long(10_000)
    status, _, rows = cell("mt_bench", None, judge=judge.settings(), out="longer")
    assert all(row["weight"] == 1 for row in rows)
    assert judge.count - before == games
    assert all(item.call for item in read_index(tmp_path / "ledger"))


def test_endpoint_that_truncates_prompts_is_reported(cell, questions, flaky, caplog):
    """By its own count no prompt exceeds its context, however long it was."""

    def spoil(context):
        def reply(_, request):
            words = len(json.dumps(request["messages"]).split())
            return 200, chat("[[A]]", usage={"prompt_tokens": min(words, context)})

        return reply

    for context, told in ((10_000, False), (100, True)):
        judge = flaky(spoil(context)).settings(model=f"m{context}")
        assert cell("mt_bench", questions, judge=judge, out=f"out{context}")[0] == 0
        assert (f"judge m{context} counts {context} tokens in prompts of different lengths" in caplog.text) == told


def test_arena_hard_follows_up_in_the_same_conversation(cell, flaky):
    asked = []

    def spoil(_, request):
        asked.append(request["messages"])
        roles = [message["role"] for message in request["messages"]]
        return 200, chat("[[A>B]]" if "assistant" in roles else "A is better, I would say [[A]]")

    hard = list(arena_hard_questions(random.Random(2), 2))
    status, _, rows = cell("arena_hard", hard, judge=flaky(spoil).settings(concurrency=1))
    assert status == 0
    assert len(asked) == 8
    roles = [[message["role"] for message in messages] for messages in asked]
    assert roles.count(["system", "user"]) == roles.count(["system", "user", "assistant", "user"]) == 4
    assert all([g["outcome"] for g in row["games"]] == ["a", "b"] and row["points"] == 1.0 for row in rows)


def test_answers_to_other_questions_are_refused(cell, questions, tmp_path):
    cell("mt_bench", questions)
    changed = [{**row, "turns": ["Something else?", row["turns"][1]]} for row in questions]
    write_jsonl(tmp_path / "other.jsonl", changed)
    status, said, _ = cell("mt_bench", questions, out="new", asked=tmp_path / "other.jsonl")
    assert status == 1
    assert "question 81 is missing or differs from the benchmark's" in said


def test_grades(questions, tmp_path, command):
    write_jsonl(tmp_path / "questions.jsonl", questions)
    for policy, write in (("good", right), ("bad", wrong)):
        (tmp_path / policy).mkdir()
        write_jsonl(tmp_path / policy / "bench.jsonl", answers(questions, write))
    benchmark = {"kind": "mt_bench", "questions": {"path": str(tmp_path / "questions.jsonl")}, "max_new_tokens": 8}
    means = {}
    for policy in ("good", "bad"):
        arguments = ["--generations", tmp_path, "--policy", policy, "--benchmark", f"bench={json.dumps(benchmark)}"]
        arguments += ["--settings", json.dumps(GOLD), "--seed", 1, "--ledger", tmp_path / "ledger"]
        assert command("eval", "grade", *arguments, "--out", tmp_path / f"{policy}.jsonl")[0] == 0
        rows = read_jsonl(tmp_path / f"{policy}.jsonl")
        assert {row["outcome"] for row in rows} == {"rated"}
        means[policy] = sum(row["rating"] for row in rows) / len(rows)
    assert means["good"] == pytest.approx(10.0)
    assert means["bad"] < 5
