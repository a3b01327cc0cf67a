"""The ledger's index, items.jsonl: which models' answers to which question each call was about.

A call holds only what was asked and answered; tables by model also need to know whose answers they were. Each line
names a call in calls.jsonl, or holds a verdict that came without its text (`label`), or says why there is none
(`missing`). A later line with the same identity replaces an earlier one, but a missing verdict never replaces a
verdict.
"""

import fcntl
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, ValidationError

from salsa.config.fields import Section
from salsa.runtime.errors import UserError
from salsa.runtime.settings import describe

INDEX = "items.jsonl"
Protocol = Literal["mt_bench_single", "mt_bench_pair", "arena_hard"]
SINGLE: Protocol = "mt_bench_single"
Identity = tuple[str, str, str, str, int, tuple[str, ...], int]


class IndexEntry(Section):
    """One graded answer, or one game between two, in the order in which the judge saw them."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    protocol: Protocol
    benchmark: str
    judge: str
    question_id: str
    category: str | None = None
    turn: int
    models: tuple[str] | tuple[str, str]
    baseline: str | None = None  # the model that the other one is compared with
    lengths: tuple[int, ...] | None = None  # characters of the answers
    template: str | None = None
    source: str
    sample: int = 0
    call: str | None = None
    label: str | None = None
    identical: bool = False  # both answers are equal: a tie without a call
    missing: Literal["cut", "failed", "refused", "too_long", "unanswered", "unparsed"] | None = None

    def identity(self) -> Identity:
        """Entries with the same identity are about the same answers and the same judge."""
        return (
            *(self.protocol, self.benchmark, self.judge, self.question_id),
            *(self.turn, self.models, self.sample),
        )


def _parse(path: Path, data: bytes) -> dict[Identity, IndexEntry]:
    """Parse the complete lines; of each identity the last."""
    entries: dict[Identity, IndexEntry] = {}
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), 1):
        try:
            entry = IndexEntry.model_validate_json(line)
        except ValidationError as error:
            raise UserError(f"{describe(error, f'{path}:{number}')}: fix or remove the line") from None
        entries[entry.identity()] = entry
    return entries


def read_index(folder: Path) -> list[IndexEntry]:
    """The index of a ledger, in the order in which identities were first stored."""
    path = folder / INDEX
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot read it ({error.strerror}): python -m eval import, judge and grade write it"
        ) from None
    return list(_parse(path, data).values())


def add_to_index(folder: Path, entries: Iterable[IndexEntry]) -> None:
    """Store entries that are new or changed. Overwrites an incomplete last line that a killed process left."""
    path = folder / INDEX
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            # One process at a time; closing the file releases the lock.
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            data = file.read()
            file.truncate(data.rfind(b"\n") + 1)
            known = _parse(path, data)
            new: dict[Identity, IndexEntry] = {}
            for entry in entries:
                old = new.get(entry.identity(), known.get(entry.identity()))
                if entry != old and (old is None or old.missing or not entry.missing):
                    new[entry.identity()] = entry
            lines = (json.dumps(entry.model_dump(exclude_defaults=True), ensure_ascii=False) for entry in new.values())
            file.write("".join(line + "\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: fix this, or name another ledger") from None
