"""A judge endpoint on the loopback interface that misbehaves on demand, for tests and benchmarks.

It implements only as much HTTP/1.1 as needed, so that it is not what a benchmark measures.
"""

import asyncio
import functools
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Answer:
    """A reply after `delay` seconds: whole, the first `cut` bytes of its body, or a dropped connection (`drop`)."""

    status: int = 200
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: int | None = None
    drop: bool = False

    @functools.cached_property
    def bytes(self) -> bytes:
        body = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        given = {"content-type": "application/json", "content-length": str(len(body)), **self.headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        return f"HTTP/1.1 {self.status} x\r\n{head}\r\n".encode() + body[: self.cut]


def chat(text: str, **keys: Any) -> dict:
    """A chat completion with this text."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], **keys}


class Connection(asyncio.Protocol):
    """Handles the requests of one connection in turn."""

    def __init__(self, server: "JudgeServer"):
        self.server, self.data, self.busy = server, b"", False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.server.connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.done()
        self.server.connections.remove(self)

    def done(self) -> None:
        self.server.in_flight -= self.busy
        self.busy = False

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, found, rest = self.data.partition(b"\r\n\r\n")
        if not found:
            return
        length = LENGTH.search(head)
        if length and len(rest) < int(length[1]):
            return
        self.data, self.busy = b"", True
        answer = self.server.received(head, rest)
        self.server.loop.call_later(answer.delay, self.send, answer)

    def send(self, answer: Answer) -> None:
        self.done()
        if answer.drop:
            self.transport.abort()
            return
        self.transport.write(answer.bytes)
        if answer.cut is not None:
            self.transport.close()


class JudgeServer:
    """Serves inside a `with` block. `answer(number, body)` returns the reply to that request, numbered from 1."""

    def __init__(self, answer: Callable[[int, bytes], Answer]):
        self.answer, self.count = answer, 0
        self.in_flight = self.most_in_flight = 0
        self.head = b""
        self.connections: set[Connection] = set()
        self.loop = asyncio.new_event_loop()

    def received(self, head: bytes, body: bytes) -> Answer:
        self.count += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.head = head
        return self.answer(self.count, body)

    def __enter__(self) -> "JudgeServer":
        start = self.loop.create_server(lambda: Connection(self), "127.0.0.1", 0, backlog=1024)
        self.server = self.loop.run_until_complete(start)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/v1"
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        return self

    async def hang_up(self) -> None:
        self.server.close()
        for connection in self.connections:
            connection.transport.abort()
        # A socket is closed in a later turn of the loop, and one just accepted is still a task.
        while self.connections or len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self.hang_up(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()
