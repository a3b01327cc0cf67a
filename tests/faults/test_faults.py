"""The smoke grid under faults, and a large ledger: `make test-faults`, 12 minutes on two cores, as root.

After each fault the same command is run again. Tables, figures and report have to equal those of an undisturbed run,
byte for byte. The judge is a test endpoint that counts the calls it receives.
"""

import contextlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from eval.judging.gold_judge import completion
from salsa.config.judge import Judge
from salsa.runtime.jsonl import read_jsonl, write_jsonl
from tests.eval.archive_case import rated
from tests.eval.judge_server import Answer, JudgeServer, chat
from tests.workflow.running import ROOT, start

KILLS = 30
CALLS = 200_000
KEY = "a key of the tests' own"
BROKEN_OFF = {"message": {"content": None}, "finish_reason": "error"}
JUDGE = Judge(kind="gold", model="gold-judge", position_bias=0.02, noise=0.05)


class Endpoint(JudgeServer):
    """The gold judge over HTTP. One request in `fails` gets a wrong reply, in a way that the seed draws."""

    def __init__(self, seed: int = 0, fails: int | None = None):
        self.fails, self.rng, self.lock = fails, random.Random(seed), threading.Lock()
        self.amiss: Counter[str] = Counter()
        self.asked: Counter[bytes] = Counter()
        super().__init__(self.reply)

    def reply(self, number: int, body: bytes) -> Answer:
        status, found = completion(json.loads(body), JUDGE)
        right = Answer(status, found)
        with self.lock:
            self.asked[body] += 1
            if self.fails is None or self.rng.randrange(self.fails):
                return right
            ways = {
                "500": Answer(500, {"error": {"message": "a fault"}}),
                "429": Answer(429, {"error": {"message": "too fast"}}, {"retry-after-ms": "20"}),
                "503 for a second": Answer(503, b"", {"retry-after": "1"}),
                "504 late": Answer(504, b"", delay=0.3),
                "dropped": Answer(drop=True),
                "cut": Answer(status, found, cut=60),
                "half a JSON": Answer(200, json.dumps(found).encode()[:-30]),
                "no choices": Answer(200, chat("", choices=[])),
                "a page": Answer(200, b"<html>fine</html>", {"content-type": "text/html"}),
                "an older format": Answer(200, {"choices": [{"text": "x"}]}),
                "null": Answer(200, b"null"),
                "no text": Answer(200, chat("")),
                "ended in an error": Answer(200, chat("", choices=[BROKEN_OFF])),
                "too late": Answer(status, found, delay=4.0),
            }
            name = self.rng.choice(list(ways))
            self.amiss[name] += 1
            return ways[name]


class Grid:
    """The smoke grid in a folder, judged by an endpoint."""

    def __init__(self, folder: Path, url: str):
        folder.mkdir(exist_ok=True)
        self.folder = folder
        judge = {"kind": "endpoint", "model": "gold-judge", "base_url": url, "api_key_env": "FAULTS_KEY"}
        judge |= {"retries": 12, "timeout_seconds": 2, "failed_share": 0.05}
        (folder / "judge.yaml").write_text(yaml.safe_dump({"judge": judge}))

    def start(self) -> "subprocess.Popen[str]":
        return start(self.folder, "--configfile", str(ROOT / "config/smoke.yaml"), str(self.folder / "judge.yaml"))

    def run(self) -> str:
        """Output of the command, which has to succeed."""
        process = self.start()
        said, _ = process.communicate(timeout=900)
        assert process.returncode == 0, said
        return said

    def results(self) -> dict[str, bytes]:
        """What a reader sees: tables, figures, report."""
        below = self.folder / "results/smoke"
        files = [path for path in below.rglob("*") if path.suffix in (".md", ".csv", ".tex", ".png", ".svg", ".html")]
        return {str(path.relative_to(below)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    os.environ["FAULTS_KEY"] = KEY
    with Endpoint() as server:
        yield server


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, endpoint) -> Grid:
    grid = Grid(tmp_path_factory.mktemp("faults") / "undisturbed", endpoint.url)
    grid.run()
    assert len(grid.results()) > 30
    assert max(endpoint.asked.values()) == 1
    return grid


def left_over(folder: Path) -> list[Path]:
    """Temporary files beside outputs that stages should have renamed or removed."""
    return [
        path
        for path in folder.rglob(".*@*")
        if path.suffix in (".tmp", ".work") and not path.is_relative_to(folder / ".snakemake")
    ]


def test_thirty_kills_change_nothing(undisturbed, endpoint, tmp_path, record_property):
    """kill -9 for the whole process group at random moments, then the same command again."""
    rng, kills, grids, calls = random.Random(17), 0, 0, endpoint.count
    while kills < KILLS:
        grids += 1
        grid = Grid(tmp_path / str(grids), endpoint.url)
        before = Counter(endpoint.asked)
        while True:
            process = grid.start()
            with contextlib.suppress(subprocess.TimeoutExpired):
                said, _ = process.communicate(timeout=rng.uniform(3, 16) if kills < KILLS else 900)
                assert process.returncode == 0, said
                break
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            kills += 1
        assert grid.results() == undisturbed.results()
        assert left_over(grid.folder) == []
        paid = {body: count - before[body] for body, count in endpoint.asked.items()}
        assert set(paid.values()) >= {1} and min(paid.values()) == 1
        twice = sum(count - 1 for count in paid.values())
        print(f"grid {grids}: {kills} kills so far, {len(paid)} calls, {twice} of them paid twice")
        keys = Counter(line["key"] for line in read_jsonl(grid.folder / "results/smoke/ledger/calls.jsonl"))
        assert set(keys.values()) == {1}, "one line per call"
    assert endpoint.count > calls


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 2 MB; `mount -o remount,size=…` enlarges it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "salsa-faults", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_full_disk_loses_nothing(undisturbed, endpoint, small_disk):
    """It gets a little space after each failure, and the same command resumes."""
    grid = Grid(small_disk / "grid", endpoint.url)
    size, failures, lines = 2.0, 0, []
    while True:
        process = grid.start()
        said, _ = process.communicate(timeout=900)
        if process.returncode == 0:
            break
        failures += 1
        assert "No space left" in said or "are free" in said, said
        lines += re.findall(r"^ *(error: .*)", said, re.MULTILINE)
        assert failures < 40
        size += 0.4
        subprocess.run(["mount", "-o", f"remount,size={int(size * 1024)}k", str(small_disk)], check=True)
    assert grid.results() == undisturbed.results()
    assert failures > 3 and left_over(grid.folder) == []
    print(f"{failures} failures until {size:.1f} MB, {len(lines)} of stages: {sorted(set(lines))[:3]}")


@pytest.mark.parametrize("seed", [1, 2])
def test_judge_that_fails_one_call_in_three_costs_only_time(undisturbed, tmp_path, seed):
    with Endpoint(seed, fails=3) as server:
        grid = Grid(tmp_path / "grid", server.url)
        for part in ("checkpoints", "data", "results", ".snakemake"):
            shutil.copytree(undisturbed.folder / part, grid.folder / part, symlinks=True)
        for part in ("judgments", "grades", "ledger", "tables", "figures"):
            shutil.rmtree(grid.folder / "results/smoke" / part)
        grid.run()
        wrong = sum(server.amiss.values())
        assert len(server.amiss) > 10 and wrong > server.count / 6
        print(f"{server.count} requests, {wrong} answered amiss: {dict(server.amiss)}")
    found, expected = grid.results(), undisturbed.results()
    # The judge's address is part of the settings that the report's run follows from.
    assert {name for name in expected if found[name] != expected[name]} <= {"report.html"}
    calls = read_jsonl(grid.folder / "results/smoke/ledger/calls.jsonl")
    assert len(calls) == len({call["key"] for call in calls})
    assert not any(KEY in path.read_text(errors="replace") for path in grid.folder.rglob("*") if path.is_file())


def test_ledger_of_200_000_calls_takes_half_a_minute_and_a_gigabyte(tmp_path):
    """Answers of 100 models to 1,000 questions of two turns, prompts of 2 KB."""
    words = "word " * 150
    rows = []
    for model, question, turn in itertools.product((f"model-{n}" for n in range(100)), range(1000), (1, 2)):
        row = rated(question, 1 + (7 * question + turn + len(model)) % 10, model=model, turn=turn)
        shown = f"[The Start of Assistant's Answer]\n{model} {question} {turn} {words}"
        rows.append(row | {"user_prompt": f"[Question]\n{words}\n\n{shown}"})
    write_jsonl(tmp_path / "archive.jsonl", rows)
    ledger = tmp_path / "ledger"
    imported = ["import", "--format", "fastchat_single", str(tmp_path / "archive.jsonl"), "--ledger", str(ledger)]
    subprocess.run([sys.executable, "-m", "eval", *imported], cwd=ROOT, check=True)
    assert (ledger / "calls.jsonl").read_bytes().count(b"\n") == CALLS
    begin = time.perf_counter()
    arguments = [sys.executable, "-m", "eval", "table", "--ledger", str(ledger), "--format", "json"]
    with (tmp_path / "tables.json").open("wb") as file:
        process = subprocess.Popen(arguments, cwd=ROOT, stdout=file)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    took, memory = time.perf_counter() - begin, usage.ru_maxrss / 2**20
    print(f"{took:.1f} s, {memory:.2f} GB")
    assert process.returncode == 0
    rows = json.loads((tmp_path / "tables.json").read_text())
    assert sum(row["n"] for row in rows if row.get("turn") == row.get("category") == "all") == CALLS
    assert took < 30 and memory < 1
