"""The ledger: a folder that keeps judge calls, one line each, keyed by what was asked. A finished call is paid once.

calls.jsonl     {key, date, judge, parameters, sample, messages, outcome, text, finish_reason, model, usage, cost,
                seconds, error}: finished calls, exactly one line a key
failures.jsonl  the same of the others: a trace of what happened, which nothing reads
claims          empty: a process that makes a call holds a lock on one of its bytes, and no other makes the same call

items.jsonl (index.py) says whose answers each call was about. What else lies there is of those who make calls, in
eval/endpoints: pace.json (pace.py), reserved-… (budget.py) and batches/ (batches.py).

`outcome` is answered, refused (the judge's endpoint would not take or answer this prompt), too_long (the prompt leaves
no room in its context: a judge of one's own may be given more) or failed. The last two are never data, and are asked
again. What a text says is decided when it is read, not here: a better parser costs nothing.

Any number of processes may work on a folder at once, from every machine that shares it and its locks. A lock goes with
its process, however that ends.
"""

import contextlib
import fcntl
import gc
import hashlib
import itertools
import json
import os
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self

from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import write_jsonl
from salsa.runtime.log import log

CALLS, FAILURES, CLAIMS = "calls.jsonl", "failures.jsonl", "claims"
FINISHED = ("answered", "refused")
COLLECT_AFTER = 20_000  # new objects
CLAIM_DIGITS = 15  # of a key, in base 16: a place in a file of 2^60 bytes, of which none exists
Entry = dict[str, Any]


def call_key(judge: str, parameters: Mapping[str, Any], messages: Sequence[Mapping[str, str]], sample: int = 0) -> str:
    """The same judge, parameters, conversation and sample give the same key."""
    text = json.dumps([judge, dict(parameters), [dict(message) for message in messages], sample], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def entries(path: Path, lines: Iterable[bytes], first: int = 1) -> Iterator[Entry]:
    """The calls in whole lines of a ledger; `first` is the number of the first line."""
    for number, line in enumerate(lines, first):
        try:
            entry = json.loads(line)
            if not {"cost", "text"} <= entry.keys() or not all(
                isinstance(entry[name], str) for name in ("key", "judge", "outcome")
            ):
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{path}:{number}: no ledger line: remove it, and its call is asked again") from None
        yield entry


def whole_lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines from here on, one at a time, but for a last one that is torn."""
    return itertools.takewhile(lambda line: line.endswith(b"\n"), file)


def read_calls(folder: Path, without: Collection[str] = ()) -> dict[str, Entry]:
    """The finished calls by key, without a lock or a change: also of a folder that cannot be written to.

    `without` names what of a call is not kept in memory: most of a large ledger are its messages.
    """
    path = folder / CALLS
    found: dict[str, Entry] = {}
    try:
        with path.open("rb") as file:
            for entry in entries(path, whole_lines(file)):
                if entry["outcome"] in FINISHED and entry["key"] not in found:
                    found[entry["key"]] = {name: value for name, value in entry.items() if name not in without}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"{path}: cannot read it ({error.strerror}): mend that, or name another ledger") from None
    return found


@contextlib.contextmanager
def seldom_collected() -> Iterator[None]:
    """A ledger's calls stay in memory, and the garbage collector's searches through them would take a tenth of the
    time."""
    usual = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()


class Ledger:
    """The finished calls of a folder, those of other processes included, and new ones appended as they come.

    `spent` is what the calls of each judge have cost, in the prices' currency.
    """

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder / CALLS
        self.finished: dict[str, Entry] = {}
        self.spent: defaultdict[str, float] = defaultdict(float)
        self.read_bytes = self.read_lines = 0
        # The file lock is the process's; this one keeps the process's own threads apart.
        self.lock, self.depth = threading.RLock(), 0
        with self._on_disk():
            folder.mkdir(parents=True, exist_ok=True)
            self.calls = self.path.open("a+b")
            self.claims = (folder / CLAIMS).open("ab")
            try:
                with self.alone():
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
    def alone(self) -> Iterator[None]:
        """No other process or thread is inside such a block of this ledger meanwhile; may be nested."""
        with self.lock:
            if self.depth == 0:
                fcntl.flock(self.calls, fcntl.LOCK_EX)
            self.depth += 1
            try:
                yield
            finally:
                self.depth -= 1
                if self.depth == 0:
                    fcntl.flock(self.calls, fcntl.LOCK_UN)

    def _take(self, entry: Entry) -> None:
        self.finished[entry["key"]] = entry
        self.spent[entry["judge"]] += entry["cost"] or 0

    def _read(self) -> None:
        """Takes in what has come since; of a line that is torn nothing, and it is cut off."""
        self.calls.seek(self.read_bytes)

        def counted(lines: Iterable[bytes]) -> Iterator[bytes]:
            for line in lines:
                yield line
                self.read_bytes += len(line)
                self.read_lines += 1

        for entry in entries(self.path, counted(whole_lines(self.calls)), self.read_lines + 1):
            if entry["outcome"] in FINISHED and entry["key"] not in self.finished:
                self._take(entry)
        if os.fstat(self.calls.fileno()).st_size > self.read_bytes:
            # A process that was killed while it wrote: what is left of the call cannot be used.
            log.warning("%s: the last line is torn: cut off, its call is asked again", self.path)
            self.calls.truncate(self.read_bytes)

    def refresh(self) -> None:
        """Takes in what other processes have finished."""
        with self._on_disk():
            if os.fstat(self.calls.fileno()).st_size != self.read_bytes:
                with self.alone():
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

    def add(self, *entries: Entry) -> list[Entry]:
        """Appends calls, and returns each one's line: an older one where its key has one. On disk when this returns."""
        date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        dated = [{"key": entry["key"], "date": date, **entry} for entry in entries]
        with self._on_disk():
            with self.alone():
                self._read()
                new = []
                for entry in dated:
                    if entry["outcome"] in FINISHED and entry["key"] not in self.finished:
                        self._take(entry)
                        new.append(entry)
                lines = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in new).encode()
                self.calls.write(lines)
                self.calls.flush()
                self.read_bytes += len(lines)
                self.read_lines += len(new)
                if failed := [entry for entry in dated if entry["outcome"] not in FINISHED]:
                    write_jsonl(self.folder / FAILURES, failed, mode="a")
            # Others need not wait for the disk.
            os.fsync(self.calls.fileno())
        return [self.finished.get(entry["key"], entry) for entry in dated]

    def close(self) -> None:
        self.calls.close()
        self.claims.close()
