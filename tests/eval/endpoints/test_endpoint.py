"""Call a judge over HTTP: what is retried, what is not, and the limits."""

import asyncio
import collections
import email.utils
import json
import time

import pytest
import tenacity

from eval.endpoints import endpoint
from eval.endpoints.endpoint import Passing, retry_after, wait_seconds
from eval.judging.client import JudgeClient, SetAside
from eval.ledger.calls import Ledger
from salsa.config.judge import Judge
from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import read_jsonl
from tests.eval.judge_server import Answer, chat

USAGE = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}


def said(n: int) -> dict:
    return chat(f"about {n}: [[A]]", usage=USAGE)


def number(request: dict) -> int:
    return int(request["messages"][-1]["content"].split()[-1])


def ask(folder, settings: dict, count: int = 1) -> tuple[list[dict], JudgeClient]:
    """Ask questions 0 … count - 1 at once."""

    async def everything() -> tuple[list[dict], JudgeClient]:
        with Ledger(folder) as ledger:
            client = JudgeClient(Judge.model_validate(settings), settings["base_url"], ledger)
            try:
                asked = [client.ask([{"role": "user", "content": f"question {n}"}]) for n in range(count)]
                return await asyncio.gather(*asked), client
            finally:
                await client.close()

    return asyncio.run(everything())


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(endpoint, "FIRST_WAIT_SECONDS", 0.05)


MISBEHAVIOURS = [
    lambda n: None,
    lambda n: Answer(429, {"error": {"message": "slow down"}}, {"retry-after": "0"}),
    lambda n: Answer(429, {"error": {"message": "slow down"}}),
    lambda n: Answer(500, b"<html>no JSON</html>", {"content-type": "text/html"}),
    lambda n: Answer(503, {"error": {"message": "overloaded"}}, {"retry-after-ms": "30"}),
    lambda n: Answer(drop=True, delay=0.02),
    lambda n: Answer(200, said(n), cut=40),
    lambda n: Answer(200, json.dumps(said(n)).encode()[:-30]),
    lambda n: Answer(200, chat("", choices=[])),
    lambda n: Answer(200, b"<html>fine</html>", {"content-type": "text/html"}),
    lambda n: Answer(200, {"choices": [{"text": "an older format"}]}),
    lambda n: Answer(200, b"null"),
    lambda n: Answer(200, said(n), delay=2.0),
    lambda n: Answer(504, b"", delay=0.1),
]


def test_64_calls_in_flight_with_faults_give_one_line_each(flaky, tmp_path, quick):
    """Each question fails once or twice, in all ways in turn; a stall of 2 s exceeds the time limit."""
    tries: collections.Counter[int] = collections.Counter()

    def spoil(_, request):
        n = number(request)
        tries[n] += 1
        wrong = MISBEHAVIOURS[n % len(MISBEHAVIOURS)](n) if tries[n] <= 1 + n % 2 else None
        return wrong or Answer(200, said(n), delay=0.06)

    judge = flaky(spoil)
    count = 40 * len(MISBEHAVIOURS)
    entries, client = ask(tmp_path, judge.settings(concurrency=64, timeout_seconds=1.5), count)
    assert [entry["text"] for entry in entries] == [f"about {n}: [[A]]" for n in range(count)]
    lines = read_jsonl(tmp_path / "calls.jsonl")
    assert len(lines) == len({line["key"] for line in lines}) == count == client.asked
    assert judge.most_in_flight == 64
    assert not (tmp_path / "failures.jsonl").exists()


def test_slow_judge_is_awaited(flaky, tmp_path):
    judge = flaky(lambda _, request: Answer(200, said(number(request)), delay=2.0))
    begin = time.monotonic()
    ask(tmp_path, judge.settings(concurrency=64, retries=0), 64)
    assert judge.count == 64 and time.monotonic() - begin < 3.5


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_honoured(flaky, tmp_path, as_date):
    times = []

    def spoil(n, request):
        times.append(time.time())
        wait = email.utils.formatdate(time.time() + 2, usegmt=True) if as_date else "1"
        return Answer(429, b"", {"Retry-After": wait}) if n == 1 else Answer(200, said(0))

    ask(tmp_path, flaky(spoil).settings())
    assert 1.0 <= times[1] - times[0] < 2.6


def test_forms_of_retry_after():
    now = 1_700_000_000.0
    assert retry_after({"retry-after": "2.5"}, now) == 2.5
    assert retry_after({"retry-after": "7", "retry-after-ms": "250"}, now) == 0.25
    assert retry_after({"retry-after": email.utils.formatdate(now + 9, usegmt=True)}, now) == pytest.approx(9)
    assert retry_after({"retry-after": email.utils.formatdate(now - 9, usegmt=True)}, now) == 0
    assert retry_after({"retry-after": "soon"}, now) is retry_after({}, now) is None


def test_waits_double_up_to_a_limit_with_jitter():
    def wait(attempt: int, error: Exception) -> float:
        state = tenacity.RetryCallState(tenacity.AsyncRetrying(), None, (), {})
        state.attempt_number = attempt
        state.set_exception((type(error), error, None))
        return wait_seconds(state)

    for attempt, longest in ((1, 0.5), (2, 1), (4, 4), (8, 60), (12, 60)):
        waits = [wait(attempt, Passing("x")) for _ in range(200)]
        assert longest / 2 <= min(waits) < 0.6 * longest and 0.9 * longest < max(waits) <= longest
        assert 3.0 <= wait(attempt, Passing("x", 3.0)) <= 3.1


def error(message: str, **keys) -> dict:
    return {"error": {"message": message, **keys}}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(401, error("wrong key")), "HTTP 401: check the key in TEST_JUDGE_KEY"),
        (Answer(404, error("no such model")), r"HTTP 404 \(no such model\): check judge.model"),
        (Answer(402, error("pay")), r"HTTP 402 \(pay\): the account's credit is used up"),
        (Answer(429, error("quota", code="insufficient_quota")), r"\(quota\): the account's credit is used up"),
        (Answer(429, b"", {"retry-after": "3600"}), "HTTP 429, and it asks to wait 3600 s: rerun then"),
        (
            Answer(400, error("Unsupported parameter: 'max_tokens'; use 'max_completion_tokens'")),
            "correct judge.model",
        ),
        (Answer(400, error("no", param="temperature", code="unsupported_value")), "correct judge.model, temperature"),
        (Answer(400, error("the model `m` does not exist", param="model")), "correct judge.model"),
    ],
)
def test_permanent_errors_are_tried_once_and_not_stored(flaky, tmp_path, answer, expected):
    judge = flaky(lambda *_: answer)
    with pytest.raises(UserError, match=expected):
        ask(tmp_path, judge.settings())
    assert judge.count == 1
    assert read_jsonl(tmp_path / "calls.jsonl") == []
    assert [line["outcome"] for line in read_jsonl(tmp_path / "failures.jsonl")] == ["failed"]


LONG = "This model's maximum context length is 4096 tokens, you asked for 5000: lower 'max_tokens'"


@pytest.mark.parametrize(
    ("answer", "count", "why"),
    [
        (Answer(400, error("content policy")), 1, "HTTP 400 (content policy)"),
        (Answer(200, chat("", choices=[{"finish_reason": "content_filter", "message": {}}])), 1, "content_filter"),
        (Answer(200, chat("", choices=[{"message": {"content": None, "refusal": "I will not"}}])), 1, "I will not"),
        (Answer(200, chat("", choices=[], id="y", created=1)), 3, "the endpoint's reply has no choices: {"),
    ],
)
def test_refusals(flaky, tmp_path, quick, answer, count, why):
    judge = flaky(lambda *_: answer)
    [entry], _ = ask(tmp_path, judge.settings(retries=2))
    assert (entry["outcome"], entry["text"]) == ("refused", "") and entry["error"].startswith(why)
    assert judge.count == count


@pytest.mark.parametrize("answer", [Answer(400, error(LONG, param="max_tokens")), Answer(413, b"")])
def test_too_long_prompt_is_no_failure_and_is_retried_later(flaky, tmp_path, answer):
    """Your own judge may have a longer context by then."""
    replies = [answer, answer, Answer(200, said(0))]
    judge = flaky(lambda number, _: replies[number - 1])
    outcomes = []
    for _ in range(4):
        [entry], _ = ask(tmp_path, judge.settings())
        outcomes.append(entry["outcome"])
    assert outcomes == ["too_long", "too_long", "answered", "answered"]
    assert judge.count == 3
    assert [line["outcome"] for line in read_jsonl(tmp_path / "calls.jsonl")] == ["answered"]
    assert [line["outcome"] for line in read_jsonl(tmp_path / "failures.jsonl")] == ["too_long"] * 2


def test_reply_cut_at_the_token_limit_is_stored(flaky, tmp_path):
    """A reasoning model that used all its tokens returns no text. Reading the reply classifies it as cut."""
    cut = Answer(200, chat("", choices=[{"finish_reason": "length", "message": {"content": None}}]))
    [entry], _ = ask(tmp_path, flaky(lambda *_: cut).settings())
    assert (entry["outcome"], entry["text"], entry["finish_reason"]) == ("answered", "", "length")


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ({"error": {"message": "no GPU for sk-very-secret"}}, "has no choices: {.error.: .*no GPU for .key."),
        (b"null", "has no choices: null"),
        (b"<html>a proxy's page</html>", "is not JSON: <html>a proxy's page"),
        ({"choices": [{"text": "an older format"}]}, "is not a chat completion, see choices.0.message: "),
        ({"choices": [{"message": {"content": None}, "finish_reason": "error"}]}, "ended in an error"),
    ],
)
def test_malformed_reply_is_retried_and_blamed_on_the_endpoint(flaky, tmp_path, quick, body, shown):
    judge = flaky(lambda number, _: Answer(200, body))
    with pytest.raises(UserError, match=f"the endpoint's reply {shown}") as raised:
        ask(tmp_path, judge.settings(retries=1))
    assert judge.count == 2
    assert "required key" not in str(raised.value) and "sk-very-secret" not in str(raised.value)


@pytest.mark.parametrize("content", [None, "", " \n", [], [{"type": "thinking", "thinking": [{"text": "[[A]]"}]}]])
def test_reply_without_text_fails_and_its_reasoning_is_ignored(flaky, tmp_path, quick, content):
    message = {"content": content, "reasoning": "[[A]]", "reasoning_content": "[[A]]"}
    empty = Answer(200, chat("", choices=[{"finish_reason": "stop", "message": message}]))
    judge = flaky(lambda number, _: empty if number <= 2 else Answer(200, said(0)))
    with pytest.raises(SetAside, match="the endpoint's reply has no text .reasoning does not count.: check what"):
        ask(tmp_path, judge.settings())
    assert judge.count == 2 and read_jsonl(tmp_path / "failures.jsonl")[0]["outcome"] == "failed"
    [entry], _ = ask(tmp_path, judge.settings())
    assert entry["outcome"] == "answered" and judge.count == 3
    assert [line["outcome"] for line in read_jsonl(tmp_path / "calls.jsonl")] == ["answered"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "So "}, {"type": "text", "text": "[[B]]"}], "So [[B]]"),
        ([{"type": "thinking", "thinking": "[[A]]"}, {"type": "text", "text": "[[B]]"}], "[[B]]"),
        ("[[B]] \ud83d", "[[B]] \N{REPLACEMENT CHARACTER}"),
        ("\udc00[[B]] \N{PARTY POPPER}", "\N{REPLACEMENT CHARACTER}[[B]] \N{PARTY POPPER}"),
    ],
)
def test_texts_in_parts_and_lone_surrogates_are_read(flaky, tmp_path, content, text):
    reply = Answer(200, chat("", choices=[{"finish_reason": "stop", "message": {"content": content}}]))
    [entry], _ = ask(tmp_path, flaky(lambda *_: reply).settings())
    assert (entry["outcome"], entry["text"]) == ("answered", text)
    assert read_jsonl(tmp_path / "calls.jsonl")[0]["text"] == text


def test_extra_parameters_are_sent_unchanged(flaky, tmp_path):
    asked = []
    judge = flaky(lambda _, request: asked.append(request) or Answer(200, said(0)))
    ask(tmp_path, judge.settings(parameters={"chat_template_kwargs": {"enable_thinking": False}}))
    assert asked[0]["chat_template_kwargs"] == {"enable_thinking": False}


def test_parameters_for_a_reasoning_model(flaky, tmp_path):
    asked = []
    judge = flaky(lambda _, request: asked.append(request) or Answer(200, said(0)))
    keys = {"temperature": None, "limit_parameter": "max_completion_tokens", "parameters": {"reasoning_effort": "low"}}
    [entry], _ = ask(tmp_path, judge.settings(max_tokens=9000, **keys))
    message = {"role": "user", "content": "question 0"}
    expected = {"max_completion_tokens": 9000, "reasoning_effort": "low"}
    assert asked == [{"model": "m", "messages": [message], **expected}]
    assert entry["parameters"] == expected


@pytest.mark.parametrize(
    ("keys", "wrong"),
    [
        ({"parameters": {"max_tokens": 3}}, "parameters: max_tokens is not set here"),
        ({"parameters": {"extra_body": {"a": 1}}}, "extra_body: write its contents directly under parameters"),
        ({"budget": 3}, "budget needs input_price and output_price"),
    ],
)
def test_contradictory_settings_are_refused(cell, questions, keys, wrong):
    status, told, _ = cell("mt_bench", questions, judge={"kind": "gold", "model": "g", **keys})
    assert status == 1 and wrong in told


PROXIES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")


@pytest.fixture
def environment(monkeypatch):
    """environment(NAME=value, …) sets these proxy variables and removes all others."""

    def set_variables(**values: str) -> None:
        for name in PROXIES:
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_variables


@pytest.mark.parametrize("name", ["HTTP_PROXY", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_local_endpoint_bypasses_the_proxy(flaky, tmp_path, environment, name, host):
    proxy = flaky(lambda *_: Answer(500, error("the proxy knows no such host")))
    environment(**{name: proxy.url.removesuffix("/v1")})
    judge = flaky(lambda *_: Answer(200, said(0)))
    [entry], _ = ask(tmp_path, judge.settings() | {"base_url": judge.url.replace("127.0.0.1", host)})
    assert entry["outcome"] == "answered" and (judge.count, proxy.count) == (1, 0)


def test_hosted_judge_uses_the_proxy_and_errors_name_it(flaky, tmp_path, quick, environment):
    proxy = flaky(lambda number, _: Answer(200, said(0)) if number == 1 else Answer(503, error("no way out")))
    address = proxy.url.removesuffix("/v1")
    environment(HTTP_PROXY=address.replace("//", "//user:secret@"))
    hosted = proxy.settings(retries=0) | {"base_url": "http://judge.example/v1"}
    [entry], _ = ask(tmp_path / "one", hosted)
    assert entry["outcome"] == "answered" and b"judge.example/v1/chat/completions" in proxy.head
    with pytest.raises(UserError, match=f"judge.example/v1 through the proxy {address}: HTTP 503") as raised:
        ask(tmp_path / "two", hosted)
    assert "secret" not in str(raised.value)
    environment(HTTP_PROXY=address, NO_PROXY="example")
    with pytest.raises(UserError, match="judge.example/v1: connection error"):
        ask(tmp_path / "three", hosted)
    assert proxy.count == 2


def test_redirects_are_refused_and_get_no_key(flaky, tmp_path):
    other = flaky(lambda *_: Answer(200, said(0)))
    for number, status in enumerate((301, 302, 307, 308)):
        judge = flaky(lambda *_, status=status: Answer(status, b"", {"location": f"{other.url}/chat/completions"}))
        with pytest.raises(
            UserError, match=f"HTTP {status}, a redirect to {other.url}/chat/completions: set judge.base_url"
        ):
            ask(tmp_path / str(number), judge.settings())
    assert other.count == 0


def test_calls_in_flight_are_stored_when_another_call_ends_the_stage(flaky, tmp_path):
    """Of 8 calls in flight one fails permanently. The others are stored, and at most one more is sent."""

    def spoil(n, request):
        return Answer(404, error("gone")) if n == 8 else Answer(200, said(number(request)), delay=0.5)

    judge = flaky(spoil)
    with pytest.raises(UserError, match="gone"):
        ask(tmp_path, judge.settings(concurrency=8), 100)
    assert judge.count in (8, 9)
    assert len(read_jsonl(tmp_path / "calls.jsonl")) == judge.count - 1
