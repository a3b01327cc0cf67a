"""A provider's batch API: calls are sent together and come back within a day, at a lower price.

For callers this is an endpoint like any other: when no new call has come for a moment, all waiting calls are sent as
one batch. Each batch has a file in the ledger's folder, batches/LABEL.json: {label, date, id, keys}; the id is missing
until the batch exists. A run that ends early thus leaves its batches to the next run, which sends nothing twice.
"""

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai

from eval.endpoints.endpoint import Endpoint, Final, Passing, Refused, Reply, Stopped, read_reply
from salsa.runtime.log import log
from salsa.runtime.outputs import output_file

BATCHES = "batches"
COLLECT_SECONDS = 0.5  # a batch is sent when no call has come for this long
MOST_CALLS, MOST_BYTES = 50_000, 100_000_000  # per batch; OpenAI allows 50,000 and 200 MB
LABEL = "salsa"  # metadata key of our batches, to find one whose id was lost
OVER = ("completed", "expired", "cancelled", "failed")


@dataclass(frozen=True, eq=False)
class Waiting:
    """A call and the future of its reply."""

    key: str
    body: Mapping[str, Any]
    reply: asyncio.Future[Reply]


def line(call: Waiting) -> bytes:
    """A call as a line of the batch's input file."""
    request = {"custom_id": call.key, "method": "POST", "url": "/v1/chat/completions", "body": call.body}
    return (json.dumps(request, ensure_ascii=False) + "\n").encode()


def parts(calls: Sequence[Waiting]) -> list[list[Waiting]]:
    """Split calls, in order, into as few batches as the limits allow."""
    batches: list[list[Waiting]] = []
    size = 0
    for call in calls:
        length = len(line(call))
        if not batches or len(batches[-1]) == MOST_CALLS or size + length > MOST_BYTES:
            batches.append([])
            size = 0
        batches[-1].append(call)
        size += length
    return batches


class BatchEndpoint(Endpoint):
    """Makes calls in batches. A call that comes back without a reply goes into another batch, up to `retries` times."""

    def __init__(self, *arguments: Any, folder: Path):
        super().__init__(*arguments)
        self.folder = folder / BATCHES
        self.api = self.openai.with_options(max_retries=self.settings.retries)
        self.waiting: list[Waiting] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.collecting: asyncio.Task[None] | None = None

    async def check(self) -> None:
        """Raise Final or Passing if there is no batch API."""
        async with self._errors():
            await self.api.batches.list(limit=1)

    async def _once(self, key: str, body: Mapping[str, Any]) -> Reply:
        call = Waiting(key, body, asyncio.get_running_loop().create_future())
        self.waiting.append(call)
        if self.collecting is None or self.collecting.done():
            self.collecting = asyncio.create_task(self._collect())
        return await call.reply

    async def _collect(self) -> None:
        """Send the waiting calls once no more come."""
        count = 0
        while len(self.waiting) != count:
            count = len(self.waiting)
            await asyncio.sleep(COLLECT_SECONDS)
        calls, self.waiting = self.waiting, []
        self._begin(self._send(calls), calls)

    def _begin(self, work: Coroutine[Any, Any, None], calls: Sequence[Waiting]) -> None:
        """Run `work` in the background; if it fails, these calls fail."""

        async def guarded() -> None:
            try:
                await work
            except Exception as error:
                for call in calls:
                    if not call.reply.done():
                        call.reply.set_exception(error)

        task = asyncio.create_task(guarded())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _send(self, calls: Sequence[Waiting]) -> None:
        """Follow earlier batches that hold some of the calls, and make new batches for the rest."""
        left = {call.key: call for call in calls}
        for label, id, keys in await self._earlier(set(left)):
            if held := [left.pop(key) for key in keys if key in left]:
                log.info("judge: batch %s, sent earlier, holds %d of the calls", id, len(held))
                self._begin(self._follow(label, id, held), held)
        for part in parts(list(left.values())):
            self._begin(self._make(part), part)

    async def _earlier(self, wanted: set[str]) -> list[tuple[str, str, list[str]]]:
        """(label, id, keys) of earlier batches that hold some of the wanted calls, latest first."""
        rows = [json.loads(path.read_text()) for path in self.folder.glob("*.json")]
        batches = []
        for row in sorted(rows, key=lambda row: row["date"], reverse=True):
            label, held = row["label"], [key for key in row["keys"] if key in wanted]
            if held and (id := row["id"] or await self._id_of(label)):
                batches.append((label, id, held))
            elif held:
                self._strike(label, held)
        return batches

    async def _id_of(self, label: str) -> str | None:
        """The id of a batch whose run ended before it could store the id; None if the batch was never made."""
        async with self._errors():
            async for batch in self.api.batches.list(limit=100):
                if (batch.metadata or {}).get(LABEL) == label:
                    return batch.id
        return None

    async def _make(self, calls: Sequence[Waiting]) -> None:
        label = secrets.token_hex(8)
        note = {"label": label, "date": time.time(), "id": None, "keys": [call.key for call in calls]}
        self._note(note)
        async with self._errors():
            file = await self.api.files.create(file=("calls.jsonl", b"".join(map(line, calls))), purpose="batch")
            batch = await self.api.batches.create(
                input_file_id=file.id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={LABEL: label},
            )
        self._note({**note, "id": batch.id})
        log.info("judge: batch %s of %d calls is sent", batch.id, len(calls))
        await self._follow(label, batch.id, calls)

    async def _follow(self, label: str, id: str, calls: Sequence[Waiting]) -> None:
        """Wait for a batch and give each call its reply."""
        rows = await self._rows(label, id)
        failed: dict[Waiting, Exception] = {}
        for call in calls:
            try:
                call.reply.set_result(self._read(rows.get(call.key), call.body))
            except (Passing, Final, Refused) as error:
                failed[call] = error
        # A retry, by this run or the next, goes into another batch.
        self._strike(label, [call.key for call in failed])
        for call, why in failed.items():
            call.reply.set_exception(why)

    async def _rows(self, label: str, id: str) -> dict[str, dict[str, Any]]:
        """Lines of the batch's output and error files by call key, once it has ended."""
        async with self._errors():
            try:
                batch = await self._over(id)
            except openai.NotFoundError:
                log.warning("judge: batch %s no longer exists", id)
                return {}
            rows: dict[str, dict[str, Any]] = {}
            for file in (batch.output_file_id, batch.error_file_id):
                if file:
                    content = (await self.api.files.content(file)).content
                    rows |= {row["custom_id"]: row for row in map(json.loads, content.splitlines())}
        if batch.status == "failed" and not rows:
            errors = batch.errors.data if batch.errors and batch.errors.data else []
            what = errors[0].message if errors else "no reason given"
            (self.folder / f"{label}.json").unlink(missing_ok=True)
            raise Final(f"batch {id} failed ({what})", "fix what it names")
        return rows

    async def _over(self, id: str) -> openai.types.Batch:
        """Wait until a batch has ended."""
        reported = ""
        while (batch := await self.api.batches.retrieve(id)).status not in OVER:
            counts = batch.request_counts
            now = f"{batch.status}, {counts.completed} of {counts.total}" if counts else batch.status
            if now != reported:
                log.info("judge: batch %s: %s", id, now)
            reported = now
            await self._sleep(self.settings.poll_seconds)
            if self.stopped.is_set():
                raise Stopped
        return batch

    def _read(self, row: Mapping[str, Any] | None, body: Mapping[str, Any]) -> Reply:
        """Convert a line of a batch's files to a reply."""
        if row is None:
            raise Passing("the batch ended without this call")
        response = row.get("response")
        if not response:
            raise Passing(f"the batch skipped this call ({(row.get('error') or {}).get('message')})")
        content = response.get("body") or {}
        if response["status_code"] != 200:
            raise self._meaning(response["status_code"], content.get("error", content), {}, body)
        return read_reply(json.dumps(content).encode(), self.key)

    @contextlib.asynccontextmanager
    async def _errors(self) -> AsyncIterator[None]:
        """Convert errors of the batch API itself; they never count as a refused call."""
        try:
            with self._typed({}):
                yield
        except Refused as error:
            raise Final(str(error), "check that the endpoint has a batch API (judge.batch)") from None
        except (ValueError, KeyError) as error:
            raise Passing(f"cannot read a file of the batch ({error})") from None

    def _note(self, note: Mapping[str, Any]) -> None:
        with output_file(self.folder / f"{note['label']}.json") as path:
            path.write_text(json.dumps(note))

    def _strike(self, label: str, keys: Sequence[str]) -> None:
        """Record that a batch has no reply for these calls."""
        path = self.folder / f"{label}.json"
        if not path.exists():
            return
        note = json.loads(path.read_text())
        left = set(note["keys"]) - set(keys)
        if left:
            self._note({**note, "keys": [key for key in note["keys"] if key in left]})
        else:
            path.unlink()
