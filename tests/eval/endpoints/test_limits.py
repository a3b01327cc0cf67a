"""Limits that processes share (requests and tokens per minute, the budget), and how a stage ends early."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from eval.endpoints.budget import UNITS, Budget, Reservations
from eval.endpoints.costs import Sizes, cost, most_tokens, price
from eval.endpoints.pace import Pace
from eval.ledger.calls import Ledger
from salsa.config.judge import Judge
from salsa.runtime.jsonl import read_jsonl
from tests.eval.judge_server import Answer, chat

PRICES = {"input_price": 2.0, "output_price": 10.0}
USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
ASK = """
import asyncio, json, sys
from pathlib import Path
from eval.judging.rounds import ask_all
from salsa.config.judge import Judge
from salsa.runtime.command import main

class Stage:
    stage = staticmethod(lambda parser: parser.add_argument("rest", nargs="*"))

    def run(arguments):
        settings = Judge.model_validate(json.loads(sys.argv[3]))
        numbers = range(int(sys.argv[4]), int(sys.argv[5]))
        ask = lambda client, n: client.ask([{"role": "user", "content": f"question {n}"}])
        print(json.dumps(ask_all(settings, Path(sys.argv[2]), numbers, ask)[1]))

sys.modules |= dict.fromkeys(("room", "room.arguments", "room.stage"), Stage)
sys.exit(main("test", {"ask": ("room.stage", "ask")}))
"""


def start(folder, settings: dict, first: int, last: int) -> subprocess.Popen:
    """Start a process that asks questions `first` … `last` - 1."""
    command = [sys.executable, "-c", ASK, "ask", folder, json.dumps(settings), str(first), str(last)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_slots_are_evenly_spaced_and_tokens_corrected(tmp_path):
    pace = Pace(tmp_path / "pace.json", "m", {"requests": 60, "tokens": 6000})
    other = Pace(tmp_path / "pace.json", "m", {"requests": 60, "tokens": 6000})
    small, large = {"requests": 1.0, "tokens": 50.0}, {"requests": 1.0, "tokens": 300.0}
    assert [pace.take(small, 100.0), other.take(small, 100.0), pace.take(large, 100.0)] == [100, 101, 102]
    # The large one takes 3 s of tokens, which began when the two small ones' half seconds ended.
    assert other.take(small, 100.0) == 104
    pace.take({"tokens": -300.0}, 100.0)
    assert pace.take(small, 110.0) == 110, "a pause gives no credit"
    assert Pace(tmp_path / "pace.json", "n", {"requests": 60}).take({"requests": 1.0}, 100.0) == 100, (
        "another judge has its own pace"
    )


def test_torn_pace_file_starts_afresh(tmp_path):
    (tmp_path / "pace.json").write_text('{"m": {"requ')
    assert Pace(tmp_path / "pace.json", "m", {"requests": 60}).take({"requests": 1.0}, 100.0) == 100


def test_two_processes_share_requests_per_minute(flaky, tmp_path):
    """40 calls at 1,200 per minute. Calls may arrive late, so the least late of the first ten sets the clock."""
    times = []

    def spoil(n, request):
        times.append(time.monotonic())
        return 200, chat("[[A]]", usage=USAGE)

    settings = flaky(spoil).settings(requests_per_minute=1200)
    both = [start(tmp_path, settings, 0, 20), start(tmp_path, settings, 20, 40)]
    for process in both:
        process.communicate(timeout=60)
    assert [process.returncode for process in both] == [0, 0]
    assert len(times) == 40
    assert max(times[-1] - times[early] + early * 0.05 for early in range(10)) > 38 * 0.05


def test_tokens_per_minute_are_respected(flaky, tmp_path):
    """40 calls of 1,100 tokens at 1,320,000 per minute take 2 s, whatever size was assumed first."""
    times = []

    def spoil(n, request):
        times.append(time.monotonic())
        return 200, chat("[[A]]", usage=USAGE)

    start(tmp_path, flaky(spoil).settings(tokens_per_minute=1_320_000, concurrency=4), 0, 40).communicate(timeout=60)
    assert len(times) == 40 and 1.5 < times[-1] - times[0] < 4


def test_cost_of_a_call():
    settings = Judge(kind="gold", model="g", **PRICES)
    assert cost(settings, USAGE) == pytest.approx(0.003)
    assert cost(Judge(kind="gold", model="g"), USAGE) is cost(settings, None) is None
    assert price(settings, 1e6, 1e6) == 12


def test_expected_sizes_are_learned():
    messages = [{"role": "system", "content": "ä" * 100}, {"role": "user", "content": "b" * 200}]
    new = Sizes()
    assert (new.prompt(400), new.answer(4096), new.answer(50)) == (100, 300, 50)
    seen = Sizes([{"messages": messages, "usage": {"prompt_tokens": 200, "completion_tokens": 30}}] * 3)
    assert (seen.prompt(400), seen.answer(4096)) == (200, 30)
    assert most_tokens(messages) >= 400


def test_dead_process_reserves_no_budget(tmp_path):
    program = (
        "import sys, time; from pathlib import Path\n"
        "from eval.endpoints.budget import Reservations; from eval.ledger.calls import Ledger\n"
        "held = Reservations(Ledger(Path(sys.argv[1])), 'm'); held.set(25); print(flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE)
    holder.stdout.readline()
    with Ledger(tmp_path) as ledger:
        mine = Reservations(ledger, "m")
        mine.set(10)
        assert mine.others() == 25
        another = Reservations(ledger, "n")
        assert another.others() == 0, "each judge has its own budget"
        another.close()
        holder.send_signal(signal.SIGKILL)
        holder.communicate(timeout=60)
        assert mine.others() == 0
        mine.close()


def test_budget_holds_over_processes_and_can_be_raised(flaky, tmp_path):
    """A call costs 0.003 and may cost 0.0055. Of 0.05, between 0.0445 and 0.05 are spent."""
    judge = flaky(lambda n, _: Answer(200, chat("[[A]]", usage=USAGE), delay=0.02))
    settings = judge.settings(**PRICES, max_tokens=500, concurrency=4, budget=0.05)
    both = [start(tmp_path, settings, 0, 30), start(tmp_path, settings, 30, 60)]
    told = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [1, 1]
    assert all("judge.budget: 0.0" in line and "of 0.05 are spent" in line for line in told)
    lines = read_jsonl(tmp_path / "calls.jsonl")
    assert 0.0445 < sum(line["cost"] for line in lines) <= 0.05
    assert len(lines) == judge.count
    with Ledger(tmp_path) as ledger:
        assert ledger.spent["m"] == pytest.approx(0.003 * len(lines))
    raised = start(tmp_path, {**settings, "budget": 1.0}, 0, 60)
    used = json.loads(raised.communicate(timeout=60)[0])
    assert (raised.returncode, judge.count, used["calls"]) == (0, 60, 60 - len(lines))


def test_budget_needs_token_counts(flaky, tmp_path):
    asking = start(tmp_path, flaky(lambda *_: (200, chat("[[A]]"))).settings(**PRICES, budget=9), 0, 1)
    assert "does not report token counts, so a budget cannot be enforced" in asking.communicate(timeout=60)[1]
    assert asking.returncode == 1 and len(read_jsonl(tmp_path / "calls.jsonl")) == 1


def test_refusal_releases_its_reservation(tmp_path):
    import asyncio

    async def once(budget: Budget) -> float:
        with pytest.raises(ZeroDivisionError):
            async with budget.reserving(0.75):
                1 / 0  # noqa: B018
        async with budget.reserving(0.75):
            return budget.reserved.amount / UNITS

    with Ledger(tmp_path) as ledger, Budget(ledger, "m", 1.0) as budget:
        assert asyncio.run(once(budget)) == 0.75


def wait_for(found) -> None:
    end = time.monotonic() + 30
    while not found():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_sigterm_waits_for_calls_in_flight(flaky, tmp_path):
    judge = flaky(lambda *_: Answer(200, chat("[[A]]", usage=USAGE), delay=0.5))
    settings = judge.settings(concurrency=4)
    asking = start(tmp_path, settings, 0, 40)
    wait_for(lambda: judge.count >= 8)
    asking.send_signal(signal.SIGTERM)
    told = asking.communicate(timeout=60)[1]
    assert asking.returncode == 75
    assert f"stopped on request; {judge.count} new calls are kept" in told and "Traceback" not in told
    assert len(read_jsonl(tmp_path / "calls.jsonl")) == judge.count < 40


def test_killed_process_repeats_only_calls_in_flight(flaky, tmp_path):
    judge = flaky(lambda *_: Answer(200, chat("[[A]]", usage=USAGE), delay=0.03))
    settings = judge.settings(concurrency=4)
    for most in (20, 60, 90):
        asking = start(tmp_path, settings, 0, 150)
        wait_for(lambda most=most: judge.count >= most)
        os.kill(asking.pid, signal.SIGKILL)
        asking.communicate(timeout=60)
    last = start(tmp_path, settings, 0, 150)
    last.communicate(timeout=60)
    lines = read_jsonl(tmp_path / "calls.jsonl")
    assert len(lines) == len({line["key"] for line in lines}) == 150
    # In flight, or arrived and on their way to the disk.
    assert judge.count <= 150 + 3 * 8


def test_log_shows_the_cost(flaky, tmp_path):
    asking = start(tmp_path, flaky(lambda *_: (200, chat("[[A]]", usage=USAGE))).settings(**PRICES), 0, 10)
    assert "judge: 10 of 10, cost 0.0300" in asking.communicate(timeout=60)[1]
