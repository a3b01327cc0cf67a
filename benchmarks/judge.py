"""Throughput of judge calls to a test endpoint, and what kill -9 leaves of the ledger.

python benchmarks/judge.py

The endpoint answers after `--latency` seconds; ideal throughput is concurrency / latency. It is measured from the first
to the ninth tenth of the calls, without the start and the end, when the last calls wait for retries. `refused` is the
share of requests that get a 429 without Retry-After after the same latency. The bare client is aiohttp alone, which
stores nothing: the most that machine and endpoint allow.
"""

import argparse
import asyncio
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp

sys.path.insert(0, str(Path(__file__).parents[1]))

from eval.judging.client import JudgeClient
from eval.judging.rounds import ask_all
from eval.ledger.calls import Ledger
from salsa.config.judge import Judge
from tests.eval.judge_server import Answer, JudgeServer, chat

KEY = "JUDGE_BENCHMARK_KEY"
PROMPT = "Which of the two answers is better, and why? " * 60
REASONS = "The first answer is correct and the second is not. " * 10 + "[[A]]"


def serve(latency: float, refused: float) -> None:
    """Start an endpoint in its own process, which prints its URL first."""
    good = Answer(200, chat(REASONS, usage={"prompt_tokens": 600, "completion_tokens": 90}), delay=latency)
    bad = Answer(429, b"{}", delay=latency)
    draw = random.Random(0)

    def answer(number: int, body: bytes) -> Answer:
        return bad if draw.random() < refused else good

    with JudgeServer(answer) as server:
        print(server.url, flush=True)
        sys.stdin.read()


def settings_for(url: str, concurrency: int) -> Judge:
    return Judge(kind="endpoint", model="m", base_url=url, api_key_env=KEY, concurrency=concurrency)


def work(url: str, folder: Path, concurrency: int, calls: int) -> list[float]:
    """Ask so many questions; returns when each was answered, in seconds."""
    times = []

    async def ask(client: JudgeClient, number: int) -> None:
        await client.ask([{"role": "user", "content": f"{number}: {PROMPT}"}])
        times.append(time.monotonic())

    ask_all(settings_for(url, concurrency), folder, range(calls), ask)
    return times


def bare(url: str, concurrency: int, calls: int) -> list[float]:
    """The same requests with aiohttp alone."""
    times, left = [], iter(range(calls))

    async def worker(session: aiohttp.ClientSession) -> None:
        for number in left:
            message = {"role": "user", "content": f"{number}: {PROMPT}"}
            async with session.post(f"{url}/chat/completions", json={"model": "m", "messages": [message]}) as reply:
                await reply.read()
            times.append(time.monotonic())

    async def everything() -> None:
        async with aiohttp.ClientSession() as session:
            await asyncio.gather(*(worker(session) for _ in range(concurrency)))

    asyncio.run(everything())
    return times


def throughput(latency: float, refused: float | None, concurrency: int, seconds: float) -> float:
    """Finished calls per second as a share of the ideal; with `refused` None, of the bare client."""
    ideal = concurrency / latency
    command = [sys.executable, __file__, "--serve", "--latency", str(latency), "--refused", str(refused or 0)]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server,
        tempfile.TemporaryDirectory() as folder,
    ):
        assert server.stdout is not None and server.stdin is not None
        url = server.stdout.readline().strip()
        calls = int(ideal * seconds)
        times = bare(url, concurrency, calls) if refused is None else work(url, Path(folder), concurrency, calls)
        server.stdin.close()
    first, last = calls // 10, 9 * calls // 10
    return (last - first) / (times[last] - times[first]) / ideal


def kills(count: int, calls: int) -> dict[str, int]:
    """Kill a process that asks `calls` questions at a random moment and restart it, `count` times."""
    requests = 0

    def answer(number: int, body: bytes) -> Answer:
        nonlocal requests
        requests += 1
        return Answer(200, chat(REASONS), delay=0.02)

    draw, ended_before = random.Random(1), 0
    with JudgeServer(answer) as server, tempfile.TemporaryDirectory() as name:
        command = [sys.executable, __file__, "--work", server.url, "--folder", name, "--calls", str(calls)]
        for _ in range(count):
            process = subprocess.Popen([*command, "--concurrency", "8"], stderr=subprocess.DEVNULL)
            seen = requests
            while requests < seen + 1 and process.poll() is None:
                time.sleep(0.001)
            time.sleep(draw.random() * 0.25)
            ended_before += process.poll() is not None
            process.send_signal(signal.SIGKILL)
            process.wait()
        work(server.url, Path(name), 8, calls)
        with Ledger(Path(name)) as ledger:
            lines, keys = ledger.path.read_bytes().count(b"\n"), len(ledger.finished)
    return {"lines": lines, "keys": keys, "requests": requests, "runs that ended before the kill": ended_before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--refused", type=float, default=0.0)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=6000)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--work", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ[KEY] = "none"
    if arguments.serve:
        serve(arguments.latency, arguments.refused)
        return
    if arguments.work:
        work(arguments.work, arguments.folder, arguments.concurrency[0], arguments.calls)
        return
    for refused in (None, 0.0, 0.1):
        for concurrency in arguments.concurrency:
            shares = [
                throughput(arguments.latency, refused, concurrency, arguments.seconds) for _ in range(arguments.rounds)
            ]
            what = "the bare client" if refused is None else f"{refused:.0%} refused"
            print(
                f"{concurrency} in flight, {arguments.latency * 1000:.0f} ms, {what}: "
                f"{statistics.median(shares):.3f} of the ideal ({min(shares):.3f} to {max(shares):.3f})",
                flush=True,
            )
    print("20 kills:", kills(20, arguments.calls))


if __name__ == "__main__":
    main()
