"""Judge with a model behind a real vLLM server."""

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from eval.ledger.calls import read_calls
from salsa.checkpoints.loading import load_tokenizer
from salsa.runtime.jsonl import read_jsonl, write_jsonl
from salsa.world.samples import mt_bench_questions
from tests.eval.judging_case import answers, right, wrong

MOST = 16  # tokens of an answer


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def served(model: Path, context: int, log: Path):
    """Base URL of a vLLM server (`vllm serve` runs this module)."""
    port = free_port()
    options = ["--model", model, "--served-model-name", "own-judge", "--port", port, "--max-model-len", context]
    options += ["--dtype", "float32", "--enforce-eager", "--kv-cache-memory-bytes", 64 << 20]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *map(str, options)]
    with log.open("w") as said:
        server = subprocess.Popen(
            command, stdout=said, stderr=said, cwd=log.parent, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    try:
        deadline = time.monotonic() + 240
        while True:
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(timeout=60)


def judge(command, folder: Path, url: str) -> list[dict]:
    settings = {"kind": "endpoint", "model": "own-judge", "base_url": url, "api_key_env": "OWN_JUDGE_KEY"}
    benchmark = {"kind": "mt_bench", "questions": {"path": str(folder / "questions.jsonl")}, "max_new_tokens": 8}
    arguments = ["--generations", folder, "--pair", "good", "bad", "--benchmark", f"bench={json.dumps(benchmark)}"]
    arguments += ["--settings", json.dumps({**settings, "max_tokens": MOST}), "--seed", 1]
    status, said = command("eval", "judge", *arguments, "--ledger", folder / "ledger", "--out", folder / "out.jsonl")
    assert status == 0, said
    return read_jsonl(folder / "out.jsonl")


def test_vllm_server_judges_and_reports_prompts_longer_than_its_context(
    tmp_path, make_checkpoint, command, monkeypatch
):
    """A model with random weights: each reply is cut at the token limit. A longer context accepts the rest."""
    monkeypatch.setenv("OWN_JUDGE_KEY", "none")
    questions = list(mt_bench_questions(random.Random(1), 1))
    write_jsonl(tmp_path / "questions.jsonl", questions)
    for policy, write in {"good": right, "bad": wrong}.items():
        (tmp_path / policy).mkdir()
        write_jsonl(tmp_path / policy / "bench.jsonl", answers(questions, write))
    model = make_checkpoint(tmp_path / "model", max_positions=8192)
    with served(model, 8192, tmp_path / "long.log") as url:
        rows = judge(command, tmp_path, url)
    assert {game["outcome"] for row in rows for game in row["games"]} == {"cut"}
    calls = list(read_calls(tmp_path / "ledger").values())
    tokenizer = load_tokenizer(model)
    for call in calls:
        assert 0 < call["usage"]["completion_tokens"] <= MOST
        ids = tokenizer.apply_chat_template(call["messages"], add_generation_prompt=True, return_dict=False)
        assert call["usage"]["prompt_tokens"] == len(ids)
    lengths = sorted(call["usage"]["prompt_tokens"] for call in calls)
    context = lengths[len(lengths) // 2] + MOST
    for path in (tmp_path / "ledger").iterdir():
        path.unlink()
    with served(model, context, tmp_path / "short.log") as url:
        rows = judge(command, tmp_path, url)
    found = [game["outcome"] for row in rows for game in row["games"]]
    assert found.count("cut") == sum(length + MOST <= context for length in lengths)
    assert found.count("too_long") == sum(length + MOST > context for length in lengths) > 0
