"""The ledger survives any end of a process, and each call is paid once, whoever makes it."""

import asyncio
import json
import multiprocessing
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eval.judging.client import JudgeClient
from eval.ledger.calls import CALLS, FAILURES, Ledger, call_key
from salsa.config.judge import Judge
from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import read_jsonl
from tests.eval.judge_server import Answer, chat
from tests.eval.judging_case import KEY

SPAWN = multiprocessing.get_context("spawn")
HELLO = [{"role": "user", "content": "Which is better?"}]


def entry(key: str, text: str = "x", outcome: str = "answered") -> dict:
    return {"key": key, "judge": "m", "outcome": outcome, "text": text, "cost": None}


def keys(folder: Path) -> list[str]:
    with Ledger(folder) as ledger:
        return sorted(ledger.finished)


def test_key_covers_the_whole_request():
    """Judge, parameters, messages and sample; not the order of mappings."""
    asked = call_key("m", {"a": 1, "b": 2}, HELLO)
    assert asked == call_key("m", {"b": 2, "a": 1}, [dict(reversed(HELLO[0].items()))], 0)
    others = [
        call_key("n", {"a": 1, "b": 2}, HELLO),
        call_key("m", {"a": 1, "b": 3}, HELLO),
        call_key("m", {"a": 1, "b": 2}, [{"role": "user", "content": "Which is better"}]),
        call_key("m", {"a": 1, "b": 2}, [*HELLO, *HELLO]),
        call_key("m", {"a": 1, "b": 2}, HELLO, 1),
    ]
    assert len({asked, *others}) == 6


def test_crash_at_any_byte_loses_only_the_last_call(tmp_path, caplog):
    with Ledger(tmp_path) as ledger:
        for key in "ab":
            ledger.add(entry(key))
        before = ledger.path.stat().st_size
        ledger.add(entry("c", "ümlaut"))
    whole = ledger.path.read_bytes()
    for end in range(before, len(whole)):
        ledger.path.write_bytes(whole[:end])
        caplog.clear()
        with Ledger(tmp_path) as again:
            assert sorted(again.finished) == ["a", "b"]
            assert ("removed an incomplete last line; its call is asked again" in caplog.text) == (end > before)
            again.add(entry("c", "ümlaut"))
        assert keys(tmp_path) == ["a", "b", "c"]
        assert [row["key"] for row in read_jsonl(tmp_path / CALLS)] == ["a", "b", "c"]


def test_failures_are_no_results_and_broken_lines_are_named(tmp_path):
    with Ledger(tmp_path) as ledger:
        ledger.add(entry("a"), entry("b", outcome="failed"))
        ledger.add(entry("c", outcome="refused"))
    assert keys(tmp_path) == ["a", "c"]
    assert [row["key"] for row in read_jsonl(tmp_path / "failures.jsonl")] == ["b"]
    ledger.path.write_bytes(ledger.path.read_bytes() + b"nonsense\n")
    with pytest.raises(UserError, match=r"calls\.jsonl:3: not a ledger line: remove it"):
        Ledger(tmp_path)


def test_read_only_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        UserError, match=r"file/ledger/calls\.jsonl: Not a directory: the ledger needs a writable folder"
    ):
        Ledger(tmp_path / "file/ledger")


def write_many(folder: Path, name: str, count: int) -> None:
    with Ledger(folder) as ledger:
        for n in range(count):
            ledger.add(entry(f"{name}-{n}", "x" * (n * 37 % 9000)))


def test_many_processes_write_at_once(tmp_path):
    writers = [SPAWN.Process(target=write_many, args=(tmp_path, str(n), 60)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    rows = read_jsonl(tmp_path / CALLS)
    assert sorted(row["key"] for row in rows) == sorted(f"{name}-{n}" for name in range(4) for n in range(60))


def write_forever(folder: Path, name: str) -> None:
    ledger, n = Ledger(folder), 0
    while True:
        ledger.add(entry(f"{name}-{n}", "x" * 20000))
        n += 1


def test_killed_writer_harms_no_other(tmp_path):
    """kill -9 during writes of more than a page: no other line is lost or mixed with the torn one."""
    steady = SPAWN.Process(target=write_many, args=(tmp_path, "steady", 120))
    steady.start()
    for n in range(3):
        victim = SPAWN.Process(target=write_forever, args=(tmp_path, f"victim{n}"))
        victim.start()
        while not (tmp_path / CALLS).exists() or f"victim{n}-3".encode() not in (tmp_path / CALLS).read_bytes():
            time.sleep(0.01)
        victim.kill()
        victim.join()
    steady.join()
    found = keys(tmp_path)
    assert [key for key in found if key.startswith("steady")] == sorted(f"steady-{n}" for n in range(120))


def test_claimed_call_is_not_made_twice(tmp_path):
    """Other processes see a claim. It ends when it is released or its process is killed."""
    key, other = call_key("m", {}, HELLO), call_key("m", {}, HELLO, 1)
    program = (
        "import sys, time; from pathlib import Path; from eval.ledger.calls import Ledger\n"
        "ledger = Ledger(Path(sys.argv[1])); print(ledger.claim(sys.argv[2]), flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", program, tmp_path, key], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "True\n"
    with Ledger(tmp_path) as ledger:
        assert not ledger.claim(key) and ledger.claim(other)
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
        assert ledger.claim(key)


ASK = """
import asyncio, json, sys
from pathlib import Path
from eval.judging.client import JudgeClient
from eval.ledger.calls import Ledger
from salsa.config.judge import Judge

async def main():
    settings = Judge.model_validate(json.loads(sys.argv[2]))
    client = JudgeClient(settings, settings.base_url, Ledger(Path(sys.argv[1])))
    order = range(40) if sys.argv[3] == "up" else range(39, -1, -1)
    ask = lambda n: client.ask([{"role": "user", "content": f"question {n}"}])
    await ask(order[0])
    print("ready", flush=True)
    sys.stdin.readline()
    texts = [entry["text"] for entry in await asyncio.gather(*map(ask, order))]
    await client.close()
    print(json.dumps([texts, client.asked]))

asyncio.run(main())
"""


def test_two_processes_with_equal_calls_pay_once(flaky, tmp_path):
    """At the same time, from both ends: the judge gets every question once, and both processes get every answer."""

    def slow(_, request):
        return Answer(200, chat(f"about {request['messages'][0]['content']}: [[A]]"), delay=0.05)

    judge = flaky(slow)
    given = json.dumps(judge.settings(concurrency=4))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([sys.executable, "-c", ASK, tmp_path, given, order], **pipes) for order in ("up", "down")]
    # Each has asked one question; of the other 38 whoever comes first.
    assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    (up, first), (down, second) = (json.loads(process.communicate()[0]) for process in both)
    expected = [f"about question {n}: [[A]]" for n in range(40)]
    assert up == expected and down == expected[::-1]
    assert judge.count == first + second == 40 and min(first, second) > 0
    assert len(read_jsonl(tmp_path / CALLS)) == 40


def test_line_describes_its_call(flaky, tmp_path):
    usage = {"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1010}
    judge = flaky(lambda *_: (200, chat("[[B]]", model="m-2026-01-01", usage=usage)))
    settings = Judge.model_validate(judge.settings(input_price=2.5, output_price=10))

    async def ask() -> dict:
        with Ledger(tmp_path) as ledger:
            client = JudgeClient(settings, settings.base_url, ledger)
            await client.ask(HELLO)
            await client.ask(HELLO, sample=1)
            await client.ask(HELLO)
            await client.close()
            return client.used()

    used = asyncio.run(ask())
    assert (used["calls"], used["calls_from_ledger"], used["judge_reports"]) == (2, 0, ["m-2026-01-01"])
    assert used["cost"] == pytest.approx(2 * (1000 * 2.5 + 10 * 10) / 1e6)
    first, second = read_jsonl(tmp_path / CALLS)
    assert (first["sample"], second["sample"]) == (0, 1) and first["key"] != second["key"]
    assert first["cost"] == pytest.approx(0.0026) and 0 < first["seconds"] < 30
    assert (first["text"], first["model"], first["messages"]) == ("[[B]]", "m-2026-01-01", HELLO)


def test_stored_calls_need_no_key_and_no_judge(cell, questions, flaky, monkeypatch, tmp_path):
    settings = flaky(lambda *_: None).settings()
    cell("mt_bench", questions, judge=settings, out="one")
    monkeypatch.delenv("TEST_JUDGE_KEY")
    monkeypatch.setattr("openai.AsyncOpenAI", None)
    assert cell("mt_bench", questions, judge=settings, out="two")[0] == 0
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


@pytest.mark.parametrize("status", [400, 401, 500])
def test_key_repeated_by_an_endpoint_stays_secret(cell, questions, flaky, tmp_path, status):
    judge = flaky(lambda *_: (status, {"error": {"message": f"the key {KEY} is wrong"}}))
    found, said, _ = cell("mt_bench", questions[:1], judge=judge.settings(retries=0))
    assert found == (0 if status == 400 else 1)
    everything = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name in (CALLS, FAILURES) and path.stat().st_size for path in everything)
    assert KEY not in said and not any(KEY.encode() in path.read_bytes() for path in everything)


def test_url_with_a_password_is_refused(cell, questions):
    for url in ("http://me:secret@host/v1", "https://host/v1?key=secret"):
        judge = {"kind": "endpoint", "model": "m", "base_url": url}
        status, said, _ = cell("mt_bench", questions, judge=judge)
        assert status == 1 and "base_url must not hold a key or password" in said and "secret" not in said


def test_ten_thousand_calls_are_read_quickly(tmp_path):
    line = json.dumps({**entry("k", "y" * 800), "messages": [{"role": "user", "content": "z" * 3000}]})
    (tmp_path / CALLS).write_text("".join(line.replace('"k"', f'"{n}"') + "\n" for n in range(10_000)))
    begin = time.perf_counter()
    assert len(keys(tmp_path)) == 10_000
    assert time.perf_counter() - begin < 5
    assert (tmp_path / "claims").stat().st_size == 0
