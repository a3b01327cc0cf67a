"""The ledger's index, items.jsonl: which models' answers to which question each call was about, one line an item.

A call says what was asked and answered; tables by model need to know who was behind it. Each item names a call of
calls.jsonl, or says why there is none: a verdict that came without its text (`label`), or none at all (`missing`).
What is stored again takes the place of what was, and a missing verdict that of none.
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

ITEMS = "items.jsonl"
Protocol = Literal["mt_bench_single", "mt_bench_pair", "arena_hard"]
SINGLE: Protocol = "mt_bench_single"
Identity = tuple[str, str, str, str, int, tuple[str, ...], int]


class Item(Section):
    """One judged answer, or one game of two, in the order in which the judge saw them."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    protocol: Protocol
    benchmark: str
    judge: str
    question_id: str
    category: str | None = None
    turn: int
    models: tuple[str] | tuple[str, str]
    baseline: str | None = None  # that model of the two which the other is measured against
    lengths: tuple[int, ...] | None = None  # characters of the answers judged
    template: str | None = None
    source: str
    sample: int = 0
    call: str | None = None
    label: str | None = None
    identical: bool = False  # both answers are the same to the letter: a tie without asking
    missing: Literal["cut", "failed", "refused", "too_long", "unanswered", "unparsed"] | None = None

    def identity(self) -> Identity:
        """Two items that share it are of the same answers, judged by the same judge."""
        return (
            *(self.protocol, self.benchmark, self.judge, self.question_id),
            *(self.turn, self.models, self.sample),
        )


def _parse(path: Path, data: bytes) -> dict[Identity, Item]:
    """The whole lines; of each identity the last."""
    found: dict[Identity, Item] = {}
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), 1):
        try:
            item = Item.model_validate_json(line)
        except ValidationError as error:
            raise UserError(f"{describe(error, f'{path}:{number}')}: mend or remove the line") from None
        found[item.identity()] = item
    return found


def read_items(folder: Path) -> list[Item]:
    """The items of a ledger, in the order in which each was first stored."""
    path = folder / ITEMS
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot read it ({error.strerror}): it is made by python -m eval import, and by judge and grade"
        ) from None
    return list(_parse(path, data).values())


def add_items(folder: Path, items: Iterable[Item]) -> None:
    """Stores what is new or differs; a torn last line, of a process that was killed, is overwritten."""
    path = folder / ITEMS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            # One process at a time; the lock goes with the file.
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            data = file.read()
            file.truncate(data.rfind(b"\n") + 1)
            known = _parse(path, data)
            new: dict[Identity, Item] = {}
            for item in items:
                old = new.get(item.identity(), known.get(item.identity()))
                if item != old and (old is None or old.missing or not item.missing):
                    new[item.identity()] = item
            lines = (json.dumps(item.model_dump(exclude_defaults=True), ensure_ascii=False) for item in new.values())
            file.write("".join(line + "\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: mend that, or name another ledger") from None
