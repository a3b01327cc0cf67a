"""Rows of a data set, from local files or from the hub at a pinned revision, and what can be used of them."""

import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from salsa.config.sections import DataSource
from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import read_jsonl

Row = dict[str, Any]
Messages = list[dict[str, str]]
T = TypeVar("T")

ROLES = ("system", "user", "assistant")
# Why a row is left out. The first say that the row carries nothing to learn from; the others, that it is at fault.
CHOICES = ("empty", "equal", "tied", "too_long")
FAULTS = ("malformed", "roles", "mismatched", "refused")


class Unusable(Exception):
    """A row that is left out: the reason that it is counted under, and what is wrong with it."""

    def __init__(self, reason: str, text: str):
        super().__init__(text)
        self.reason = reason


def load_rows(source: DataSource, seed: int) -> list[Row]:
    """All rows of the source, or `limit` of them drawn with `seed`, in the source's order."""
    return [row for _, row in numbered_rows(source, seed)]


def numbered_rows(source: DataSource, seed: int) -> list[tuple[int, Row]]:
    """What `load_rows` gives, each with its number in the source, from 1 on."""
    rows = list(enumerate(_local_rows(Path(source.path)) if source.path is not None else hub_rows(source), 1))
    if source.limit is None or source.limit >= len(rows):
        return rows
    chosen = sorted(random.Random(seed).sample(range(len(rows)), source.limit))
    return [rows[index] for index in chosen]


def local_files(path: Path) -> list[Path]:
    """The file itself, or a folder's Parquet files in the order of their names."""
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: a folder without .parquet files: name a JSONL file, or a folder that has them")
    return files


def _local_rows(path: Path) -> list[Row]:
    """The rows of a JSONL file, a Parquet file, or a folder of Parquet files."""
    files = local_files(path)
    if files[0].suffix != ".parquet":
        return read_jsonl(path)
    # pyarrow takes half a second to import, and most data are JSONL.
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[Row] = []
    for file in files:
        try:
            rows += pq.ParquetFile(file).read().to_pylist()
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise UserError(f"{file}: cannot read it as Parquet ({str(error).splitlines()[0]}): mend it") from None
    return rows


def hub_rows(source: DataSource) -> Iterable[Row]:
    """The rows of a hub data set's split at its revision."""
    # datasets takes seconds to import, and most stages read local files.
    import datasets

    assert source.hub is not None
    try:
        found: Iterable[Row] = datasets.load_dataset(source.hub, revision=source.revision, split=source.split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"data set {source.hub}@{source.revision} split {source.split}: cannot load it ({reason}): "
            "check the network and the token, or give path: with a local JSONL copy"
        ) from None
    return found


def source_name(source: DataSource) -> str:
    """The source's name in a message or a table."""
    return source.path or f"{source.hub} {source.split}"


def _messages(row: Row, key: str) -> Messages:
    """The turns under a row's key."""
    try:
        messages = [{"role": message["role"], "content": message["content"]} for message in row[key]]
    except (KeyError, TypeError):
        messages = []
    if not messages or not all(isinstance(value, str) for message in messages for value in message.values()):
        raise Unusable("malformed", f"no `{key}` with a role and a text in each turn")
    unknown = [message["role"] for message in messages if message["role"] not in ROLES]
    if unknown:
        raise Unusable("roles", f"`{key}` has a turn of {unknown[0]!r}, not of {', '.join(ROLES)}")
    return messages


def _spoken(messages: Messages) -> Messages:
    """The messages, where each turn says something."""
    if any(not message["content"].strip() for message in messages):
        raise Unusable("empty", "a turn says nothing")
    return messages


def conversation(row: Row) -> Messages:
    """The dialogue of a row up to and with the last user's turn: `messages` cut there, else `prompt` alone.

    UltraFeedback's and UltraChat's _sft and _prefs splits hold the whole dialogue, their _gen splits end with the user.
    Raises Unusable.
    """
    if row.get("messages"):
        messages = _messages(row, "messages")
    elif isinstance(row.get("prompt"), str):
        messages = [{"role": "user", "content": row["prompt"]}]
    else:
        raise Unusable("malformed", "neither `messages` nor a text as `prompt`")
    last = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=-1)
    if last < 0:
        raise Unusable("roles", "`messages` has no turn of the user")
    return _spoken(messages[: last + 1])


def user_turns(messages: Messages) -> list[str]:
    """What the user said, turn by turn."""
    return [message["content"] for message in messages if message["role"] == "user"]


def demonstration(row: Row) -> Messages:
    """A whole dialogue that ends with the assistant; UltraChat's schema. Raises Unusable."""
    messages = _messages(row, "messages")
    if messages[-1]["role"] != "assistant":
        raise Unusable("roles", "`messages` does not end with a turn of the assistant, as in a _sft split")
    return _spoken(messages)


def preference(row: Row) -> tuple[Messages, Messages]:
    """The chosen and the rejected dialogue; UltraFeedback's schema.

    Raises Unusable, where answers are empty or equal or their scores tied too: such a row carries no preference.
    """
    chosen, rejected = _messages(row, "chosen"), _messages(row, "rejected")
    if chosen[:-1] != rejected[:-1]:
        raise Unusable("mismatched", "chosen and rejected do not answer the same dialogue")
    if any(side[-1]["role"] != "assistant" for side in (chosen, rejected)):
        raise Unusable("roles", "chosen and rejected do not end with a turn of the assistant")
    _spoken(chosen + rejected)
    if chosen == rejected:
        raise Unusable("equal", "chosen and rejected are the same")
    if row.get("score_chosen") is not None and row["score_chosen"] == row.get("score_rejected"):
        raise Unusable("tied", "both scores are the same")
    return chosen, rejected


def each(take: Callable[[Row], T], rows: Iterable[Row]) -> list[T | Unusable]:
    """What `take` makes of each row, or the Unusable that it raises."""
    found: list[T | Unusable] = []
    for row in rows:
        try:
            found.append(take(row))
        except Unusable as unusable:
            found.append(unusable)
    return found
