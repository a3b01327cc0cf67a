"""The ledger: a folder that stores judge calls by what was asked, so that no call is paid twice.

calls.jsonl     {key, date, judge, parameters, sample, messages, outcome, text, finish_reason, model, usage, cost,
                seconds, error}: finished calls, one line per key
failures.jsonl  the same for failed calls; a trace that nothing reads
claims          empty; a process that makes a call locks one byte of it, so no other process makes the same call

items.jsonl (index.py) says whose answers each call was about. Other files belong to eval/endpoints: pace.json
(pace.py), reserved-… (budget.py) and batches/ (batches.py).

`outcome` is answered, refused (the endpoint declined this prompt), too_long (the prompt does not fit the judge's
context, which you may enlarge for your own judge) or failed. The last two are not stored as data and are asked again.
Replies are parsed when they are read, so improving the parser costs no calls.

Any number of processes may use a folder at once, on all machines that share it and its locks. The kernel releases the
locks of a process that ends.
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
COLLECT_AFTER = 20_000  # new objects between garbage collections
CLAIM_DIGITS = 15  # hexadecimal digits of a key that give the byte to lock
Entry = dict[str, Any]


def call_key(judge: str, parameters: Mapping[str, Any], messages: Sequence[Mapping[str, str]], sample: int = 0) -> str:
    """Key of a call: a hash of judge, parameters, messages and sample."""
    text = json.dumps([judge, dict(parameters), [dict(message) for message in messages], sample], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def entries(path: Path, lines: Iterable[bytes], first: int = 1) -> Iterator[Entry]:
    """Parse complete lines of a ledger; `first` is the number of the first line, for messages."""
    for number, line in enumerate(lines, first):
        try:
            entry = json.loads(line)
            if not {"cost", "text"} <= entry.keys() or not all(
                isinstance(entry[name], str) for name in ("key", "judge", "outcome")
            ):
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{path}:{number}: not a ledger line: remove it; its call is then asked again") from None
        yield entry


def whole_lines(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the remaining lines, without an incomplete last one."""
    return itertools.takewhile(lambda line: line.endswith(b"\n"), file)


def read_calls(folder: Path, without: Collection[str] = ()) -> dict[str, Entry]:
    """Read the finished calls by key. Needs no lock and no write permission.

    Fields in `without` are dropped to save memory; most of a large ledger is its messages.
    """
    path = folder / CALLS
    calls: dict[str, Entry] = {}
    try:
        with path.open("rb") as file:
            for entry in entries(path, whole_lines(file)):
                if entry["outcome"] in FINISHED and entry["key"] not in calls:
                    calls[entry["key"]] = {name: value for name, value in entry.items() if name not in without}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"{path}: cannot read it ({error.strerror}): fix this, or name another ledger") from None
    return calls


@contextlib.contextmanager
def rare_garbage_collection() -> Iterator[None]:
    """Collect garbage rarely: scanning a ledger's calls, which stay in memory, would take a tenth of the time."""
    usual = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()


class Ledger:
    """A ledger folder, open for reading and appending, shared with other processes.

    `finished` holds the finished calls by key; `spent` is the total cost by judge, in the prices' currency.
    """

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder / CALLS
        self.finished: dict[str, Entry] = {}
        self.spent: defaultdict[str, float] = defaultdict(float)
        self.read_bytes = self.read_lines = 0
        # The file lock belongs to the process; this one separates its threads.
        self.lock, self.depth = threading.RLock(), 0
        with self._on_disk():
            folder.mkdir(parents=True, exist_ok=True)
            self.calls = self.path.open("a+b")
            self.claims = (folder / CLAIMS).open("ab")
            try:
                with self.exclusive():
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
                f"{self.path}: {error.strerror}: the ledger needs a writable folder with room and locks: "
                "fix this, or name another (paths.ledger)"
            ) from None

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Lock the ledger against other processes and threads; may be nested."""
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
        """Read what was appended since the last read; removes an incomplete last line."""
        self.calls.seek(self.read_bytes)

        def format_counts(lines: Iterable[bytes]) -> Iterator[bytes]:
            for line in lines:
                yield line
                self.read_bytes += len(line)
                self.read_lines += 1

        for entry in entries(self.path, format_counts(whole_lines(self.calls)), self.read_lines + 1):
            if entry["outcome"] in FINISHED and entry["key"] not in self.finished:
                self._take(entry)
        if os.fstat(self.calls.fileno()).st_size > self.read_bytes:
            # A process was killed while writing.
            log.warning("%s: removed an incomplete last line; its call is asked again", self.path)
            self.calls.truncate(self.read_bytes)

    def refresh(self) -> None:
        """Read what other processes have appended."""
        with self._on_disk():
            if os.fstat(self.calls.fileno()).st_size != self.read_bytes:
                with self.exclusive():
                    self._read()

    def claim(self, key: str) -> bool:
        """Claim a call for this process; False while another process is making it."""
        with self._on_disk():
            try:
                fcntl.lockf(self.claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(key[:CLAIM_DIGITS], 16))
            except (BlockingIOError, PermissionError):
                return False
        return True

    def release(self, key: str) -> None:
        """Give up the claim."""
        fcntl.lockf(self.claims, fcntl.LOCK_UN, 1, int(key[:CLAIM_DIGITS], 16))

    def add(self, *entries: Entry) -> list[Entry]:
        """Append calls and return the stored entry of each (an older one if the key exists). They are on disk then."""
        date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        dated = [{"key": entry["key"], "date": date, **entry} for entry in entries]
        with self._on_disk():
            with self.exclusive():
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
            # Outside the lock, so that others need not wait for the disk.
            os.fsync(self.calls.fileno())
        return [self.finished.get(entry["key"], entry) for entry in dated]

    def close(self) -> None:
        self.calls.close()
        self.claims.close()
