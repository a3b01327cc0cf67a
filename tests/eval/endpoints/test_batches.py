"""Judge through a provider's batch API: requests, results, and runs that end in between."""

import email
import json
import signal
import time

import pytest

from eval.endpoints import batches
from eval.endpoints.batches import Waiting, parts
from eval.ledger.calls import Ledger
from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import read_jsonl
from tests.eval.endpoints.test_endpoint import ask, error
from tests.eval.endpoints.test_limits import PRICES, USAGE, start, wait_for
from tests.eval.judge_server import Answer, JudgeServer, chat
from tests.eval.judging_case import KEY


class BatchServer(JudgeServer):
    """Files and batches as in OpenAI's API. `answer(request)` is a call's (status, body), or None for no line.

    A batch ends after `looks` polls with the status `ends`; with a negative number it never ends.
    """

    def __init__(self, answer=lambda request: (200, chat("[[A]]", usage=USAGE)), looks=1, ends="completed"):
        super().__init__(answer)
        self.looks, self.ends = looks, ends
        self.files: dict[str, bytes] = {}
        self.batches: list[dict] = []
        self.paths: list[str] = []

    def received(self, head: bytes, body: bytes) -> Answer:
        method, path, _ = head.decode().split(" ", 2)
        path = path.removeprefix("/v1").partition("?")[0]
        self.paths.append(f"{method} {path}")
        match [method, *path.strip("/").split("/")]:
            case ["POST", "files"]:
                message = email.message_from_bytes(head.partition(b"\r\n")[2] + b"\r\n\r\n" + body)
                fields = {part.get_param("name", header="content-disposition"): part for part in message.get_payload()}
                assert fields["purpose"].get_payload() == "batch"
                return Answer(200, self.file(fields["file"].get_payload(decode=True)))
            case ["GET", "files", name, "content"]:
                return Answer(200, self.files[name], {"content-type": "application/octet-stream"})
            case ["POST", "batches"]:
                asked = json.loads(body)
                assert asked["endpoint"] == "/v1/chat/completions" and asked["completion_window"] == "24h"
                batch = {"id": f"batch-{len(self.batches)}", "object": "batch", "status": "in_progress", **asked}
                self.batches.append({**batch, "created_at": 0, "looks": 0})
                return Answer(200, self.batches[-1])
            case ["GET", "batches"]:
                return Answer(200, {"object": "list", "data": self.batches[::-1], "has_more": False})
            case ["GET", "batches", name]:
                found = [batch for batch in self.batches if batch["id"] == name]
                return Answer(200, self.look(found[0])) if found else Answer(404, error("no such batch"))
        return Answer(404, error("not here"))

    def file(self, content: bytes) -> dict:
        name = f"file-{len(self.files)}"
        self.files[name] = content
        return {"id": name, "object": "file", "bytes": 0, "created_at": 0, "filename": "x", "purpose": "batch"}

    def asked(self, batch: dict) -> list[dict]:
        return [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]

    def look(self, batch: dict) -> dict:
        batch["looks"] += 1
        if 0 <= self.looks < batch["looks"] and batch["status"] == "in_progress":
            batch["status"] = self.ends
            good, bad = [], []
            # In another order than asked.
            for call in reversed(self.asked(batch)):
                if found := self.answer(call["body"]):
                    response = {"status_code": found[0], "request_id": "r", "body": found[1]}
                    line = {"id": "l", "custom_id": call["custom_id"], "response": response, "error": None}
                    (good if found[0] == 200 else bad).append(json.dumps(line).encode())
            batch["output_file_id"] = self.file(b"\n".join(good))["id"] if good else None
            batch["error_file_id"] = self.file(b"\n".join(bad))["id"] if bad else None
        return batch

    def settings(self, **keys) -> dict:
        how = {"batch": True, "poll_seconds": 0.05, "api_key_env": "TEST_JUDGE_KEY", **PRICES}
        return {"kind": "endpoint", "model": "m", "base_url": self.url, **how, **keys}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(batches, "COLLECT_SECONDS", 0.05)
    monkeypatch.setattr("eval.endpoints.endpoint.FIRST_WAIT_SECONDS", 0.02)
    monkeypatch.setenv("TEST_JUDGE_KEY", KEY)


def about(request: dict) -> tuple[int, dict]:
    return 200, chat(f"about {request['messages'][0]['content']}", usage=USAGE)


def test_concurrent_calls_form_one_batch(tmp_path):
    with BatchServer(about, looks=3) as server:
        entries, client = ask(tmp_path, server.settings(), 30)
        assert [entry["text"] for entry in entries] == [f"about question {n}" for n in range(30)]
        assert [server.paths.count(f"POST {path}") for path in ("/files", "/batches", "/chat/completions")] == [1, 1, 0]
        [batch] = server.batches
        first = server.asked(batch)[0]
        assert (first["method"], first["url"], first["custom_id"]) == (
            "POST",
            "/v1/chat/completions",
            entries[0]["key"],
        )
        messages = [{"role": "user", "content": "question 0"}]
        assert first["body"] == {"model": "m", "messages": messages, "max_tokens": 2048, "temperature": 0.0}
        assert client.spent == pytest.approx(30 * 0.003) and {entry["outcome"] for entry in entries} == {"answered"}
        seen = len(server.paths)
        ask(tmp_path, server.settings(), 30)
        assert len(server.paths) == seen, "calls in the ledger need no batch"
    assert not any(KEY in path.read_text() for path in tmp_path.rglob("*") if path.is_file())


def test_calls_without_a_reply_are_batched_again(tmp_path):
    tries = []

    def answer(request):
        n = int(request["messages"][0]["content"].split()[1])
        tries.append(n)
        odd = {0: (500, error("oops")), 1: (429, error("slow down")), 2: None, 3: (400, error("content policy"))}
        return odd.get(n, about(request)) if tries.count(n) == 1 else about(request)

    with BatchServer(answer, ends="expired") as server:
        entries, _ = ask(tmp_path, server.settings(), 8)
        assert [len(server.asked(batch)) for batch in server.batches] == [8, 3]
    assert [entry["outcome"] for entry in entries] == ["answered"] * 3 + ["refused"] + ["answered"] * 4
    assert entries[3]["error"] == "HTTP 400 (content policy)"


def test_retries_are_limited(tmp_path):
    with BatchServer(lambda request: (500, error("oops"))) as server:
        with pytest.raises(UserError, match=r"HTTP 500 \(oops\)"):
            ask(tmp_path, server.settings(retries=2), 2)
        assert len(server.batches) == 3
        assert read_jsonl(tmp_path / "calls.jsonl") == []
        server.answer = about
        ask(tmp_path, server.settings(retries=0), 2)
        assert len(server.batches) == 4, "empty batches are not repeated forever"


def test_next_run_collects_a_killed_runs_batch(tmp_path):
    with BatchServer(about, looks=-1) as server:
        asking = start(tmp_path, server.settings(), 0, 20)
        wait_for(lambda: "GET /batches/batch-0" in server.paths)
        asking.kill()
        asking.communicate(timeout=60)
        server.looks = 0
        # More questions by now: the old batch keeps its own, the new ones get another.
        entries, _ = ask(tmp_path, server.settings(), 25)
        assert [len(server.asked(batch)) for batch in server.batches] == [20, 5]
    assert [entry["text"] for entry in entries] == [f"about question {n}" for n in range(25)]


def test_stopped_run_resumes(tmp_path):
    with BatchServer(about, looks=-1) as server:
        asking = start(tmp_path, server.settings(poll_seconds=50), 0, 20)
        wait_for(lambda: "GET /batches/batch-0" in server.paths)
        begin = time.monotonic()
        asking.send_signal(signal.SIGTERM)
        told = asking.communicate(timeout=60)[1]
        assert asking.returncode == 75 and time.monotonic() - begin < 10
        assert "judge: batch batch-0 of 20 calls is sent" in told and "stopped on request; 0 new calls" in told
        server.looks = 0
        ask(tmp_path, server.settings(), 20)
        assert len(server.batches) == 1


def test_unrecorded_batch_is_found_by_its_label(tmp_path):
    """Killed between creating the batch and recording its id, or before creating it."""
    with BatchServer(about) as server:
        ask(tmp_path, server.settings(), 5)
        [file] = (tmp_path / "batches").glob("*.json")
        note = json.loads(file.read_text())
        assert note["id"] == "batch-0"
        (tmp_path / "calls.jsonl").unlink()
        file.write_text(json.dumps({**note, "id": None}))
        ask(tmp_path, server.settings(), 5)
        assert len(server.batches) == 1
        (tmp_path / "calls.jsonl").unlink()
        server.batches.clear()
        ask(tmp_path, server.settings(), 5)
        assert len(server.batches) == 1, "the batch did not exist and is created"


def test_deleted_batch_is_created_again(tmp_path):
    with BatchServer(about) as server:
        ask(tmp_path, server.settings(), 5)
        (tmp_path / "calls.jsonl").unlink()
        server.batches.clear()
        server.batches.append({"id": "another", "status": "completed"})
        entries, _ = ask(tmp_path, server.settings(), 5)
        assert len(entries) == 5 and len(server.batches) == 2


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(404, error("no batches here")), r"HTTP 404 \(no batches here\): check judge.model and judge.base_url"),
        (Answer(400, error("bad file")), r"HTTP 400 \(bad file\): check that the endpoint has a batch API"),
        (Answer(401, error("key")), "HTTP 401: check the key in TEST_JUDGE_KEY"),
    ],
)
def test_endpoint_without_batches_is_named(tmp_path, answer, expected):
    with JudgeServer(lambda *_: answer) as server:
        settings = BatchServer.settings(server, retries=0)
        with pytest.raises(UserError, match=expected):
            ask(tmp_path, settings, 3)
    with Ledger(tmp_path) as ledger:
        assert not ledger.finished


def test_failed_batch_names_the_reason(tmp_path):
    with BatchServer(lambda request: None, ends="failed") as server:
        server.look_was = server.look
        why = {"errors": {"object": "list", "data": [{"code": "x", "message": "the file is too long"}]}}
        server.look = lambda batch: {**server.look_was(batch), **why}
        for n in range(2):
            with pytest.raises(UserError, match=rf"batch batch-{n} failed \(the file is too long\)"):
                ask(tmp_path, server.settings(), 3)


def test_batches_respect_the_providers_limit(monkeypatch):
    calls = [Waiting(str(n), {"messages": [{"content": "x" * 1000}]}, None) for n in range(10)]
    monkeypatch.setattr(batches, "MOST_CALLS", 4)
    assert [len(part) for part in parts(calls)] == [4, 4, 2]
    monkeypatch.setattr(batches, "MOST_BYTES", 3500)
    assert [len(part) for part in parts(calls)] == [3, 3, 3, 1]
    assert [call.key for part in parts(calls) for call in part] == [str(n) for n in range(10)]


def test_arena_hard_follow_up_is_a_second_batch(cell, tmp_path):
    import random

    from salsa.world.samples import arena_hard_questions

    def answer(request):
        again = any(message["role"] == "assistant" for message in request["messages"])
        return 200, chat("[[A>B]]" if again else "A is better, I would say", usage=USAGE)

    with BatchServer(answer) as server:
        hard = list(arena_hard_questions(random.Random(2), 2))
        status, _, rows = cell("arena_hard", hard, judge=server.settings())
        assert status == 0 and {row["points"] for row in rows} == {1.0}
        assert [len(server.asked(batch)) for batch in server.batches] == [4, 4]


def test_gold_judge_has_no_batches(cell, questions):
    status, told, _ = cell("mt_bench", questions, judge={"kind": "gold", "model": "g", "batch": True})
    assert status == 1 and "batch: the gold judge has no batch API" in told
