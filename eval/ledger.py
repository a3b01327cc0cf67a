"""The ledger: a folder that keeps judge calls, one line each, keyed by what was asked. A finished call is paid once.

calls.jsonl   {key, date, judge, parameters, sample, messages, outcome, text, finish_reason, model, usage, cost,
              seconds, error}
claims        empty: a process that makes a call holds a lock on one of its bytes, and no other makes the same call

`outcome` is answered, refused (the judge's endpoint would not take or answer this prompt) or failed. A failure is kept
as a trace of what happened, is never data, and is asked again. What a text says is decided when it is read, not here:
a better parser costs nothing.

Any number of processes may work on a folder at once, from every machine that shares it and its locks. A lock goes with
its process, however that ends.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from salsa.errors import UserError
from salsa.stage import log

CALLS, CLAIMS = "calls.jsonl", "claims"
FINISHED = ("answered", "refused")
CLAIM_DIGITS = 15  # of a key, in base 16: a place in a file of 2^60 bytes, of which none exists
Entry = dict[str, Any]


def call_key(judge: str, parameters: Mapping[str, Any], messages: Sequence[Mapping[str, str]], sample: int = 0) -> str:
    """The same judge, parameters, conversation and sample give the same key."""
    text = json.dumps([judge, dict(parameters), [dict(message) for message in messages], sample], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class Ledger:
    """The finished calls of a folder, those of other processes included, and new ones appended as they come."""

    def __init__(self, folder: Path):
        self.path = folder / CALLS
        self.finished: dict[str, Entry] = {}
        self.read_bytes = self.read_lines = 0
        with self._on_disk():
            folder.mkdir(parents=True, exist_ok=True)
            self.calls = self.path.open("a+b")
            self.claims = (folder / CLAIMS).open("ab")
            try:
                with self._alone():
                    self._read()
            except UserError:
                self.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _on_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.path}: {error.strerror}: the ledger has to be a folder that can be written to and locked, with "
                "room: mend it, or name another (paths.ledger)"
            ) from None

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process writes meanwhile."""
        fcntl.flock(self.calls, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self.calls, fcntl.LOCK_UN)

    def _read(self) -> None:
        """Takes in what has come since; of a line that is torn nothing, and it is cut off."""
        self.calls.seek(self.read_bytes)
        whole, newline, torn = self.calls.read().rpartition(b"\n")
        for line in whole.splitlines() if newline else ():
            self.read_lines += 1
            try:
                entry = json.loads(line)
                if entry["outcome"] in FINISHED:
                    self.finished.setdefault(entry["key"], entry)
            except (ValueError, KeyError, TypeError):
                raise UserError(
                    f"{self.path}:{self.read_lines}: no ledger line: remove it, and its call is asked again"
                ) from None
        self.read_bytes += len(whole) + len(newline)
        if torn:
            # A process that was killed while it wrote: what is left of the call cannot be used.
            log.warning("%s: the last line is torn: cut off, its call is asked again", self.path)
            self.calls.truncate(self.read_bytes)

    def refresh(self) -> None:
        """Takes in what other processes have finished."""
        with self._on_disk():
            if os.fstat(self.calls.fileno()).st_size != self.read_bytes:
                with self._alone():
                    self._read()

    def claim(self, key: str) -> bool:
        """Whether this call is now this process's to make: not while another process makes it."""
        with self._on_disk():
            try:
                fcntl.lockf(self.claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(key[:CLAIM_DIGITS], 16))
            except (BlockingIOError, PermissionError):
                return False
        return True

    def release(self, key: str) -> None:
        fcntl.lockf(self.claims, fcntl.LOCK_UN, 1, int(key[:CLAIM_DIGITS], 16))

    def add(self, entry: Entry) -> Entry:
        """Appends a call; it is on disk when this returns."""
        dated = {"key": entry["key"], "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **entry}
        line = (json.dumps(dated, ensure_ascii=False) + "\n").encode()
        with self._on_disk(), self._alone():
            self._read()
            self.calls.write(line)
            self.calls.flush()
            os.fsync(self.calls.fileno())
            self.read_bytes += len(line)
            self.read_lines += 1
        if entry["outcome"] in FINISHED:
            self.finished[entry["key"]] = dated
        return dated

    def close(self) -> None:
        self.calls.close()
        self.claims.close()
