"""The ledger: one line a judge call, keyed by what was asked. A finished call is never paid twice.

    {key, date, judge, parameters, messages, outcome, text, finish_reason, usage, error}

`outcome` is answered, refused (the judge's endpoint would not take or answer this prompt) or failed. A failure is kept
as a trace of what happened, is never data, and is asked again. What a text says is decided when it is read, not here:
a better parser costs nothing.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from salsa.errors import UserError
from salsa.stage import log

FINISHED = ("answered", "refused")
Entry = dict[str, Any]


def call_key(judge: str, parameters: Mapping[str, Any], messages: Sequence[Mapping[str, str]]) -> str:
    """The same judge, parameters and conversation give the same key."""
    text = json.dumps([judge, dict(parameters), [dict(message) for message in messages]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class Ledger:
    """The finished calls of a file, and new ones appended as they come."""

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.finished: dict[str, Entry] = {}
        if path.exists():
            self._read()
        self.file = path.open("a", encoding="utf-8")

    def _read(self) -> None:
        whole, _, torn = self.path.read_bytes().rpartition(b"\n")
        if torn:
            # A run that was killed while it wrote: what is left of the call cannot be used.
            log.warning("%s: the last line is torn: cut off, its call is asked again", self.path)
            with self.path.open("r+b") as file:
                file.truncate(len(whole) + 1 if whole else 0)
        for number, line in enumerate(whole.decode().splitlines(), 1):
            try:
                entry = json.loads(line)
                if entry["outcome"] in FINISHED:
                    self.finished.setdefault(entry["key"], entry)
            except (ValueError, KeyError, TypeError):
                raise UserError(
                    f"{self.path}:{number}: no ledger line: remove it, and its call is asked again"
                ) from None

    def add(self, entry: Entry) -> Entry:
        """Appends a call; it is on disk when this returns."""
        dated = {"key": entry["key"], "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **entry}
        self.file.write(json.dumps(dated, ensure_ascii=False) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())
        if entry["outcome"] in FINISHED:
            self.finished[entry["key"]] = dated
        return dated

    def close(self) -> None:
        self.file.close()
