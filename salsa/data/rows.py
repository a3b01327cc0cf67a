"""Read the rows of a data set (local files, or the hub at a pinned revision) and turn them into dialogues."""

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
# Reasons to leave a row out. The first group are valid rows with nothing to learn from; the second are invalid rows.
CHOICES = ("empty", "equal", "tied", "too_long")
FAULTS = ("malformed", "roles", "mismatched", "refused")


class Unusable(Exception):
    """A row to leave out: `reason` is the name it is counted under, the text says what is wrong."""

    def __init__(self, reason: str, text: str):
        super().__init__(text)
        self.reason = reason


def load_rows(source: DataSource, seed: int) -> list[Row]:
    """All rows of the source, or `limit` of them drawn at random with `seed`, in source order."""
    return [row for _, row in numbered_rows(source, seed)]


def numbered_rows(source: DataSource, seed: int) -> list[tuple[int, Row]]:
    """Like `load_rows`, each row with its 1-based number in the source."""
    rows = list(enumerate(_local_rows(Path(source.path)) if source.path is not None else hub_rows(source), 1))
    if source.limit is None or source.limit >= len(rows):
        return rows
    indices = sorted(random.Random(seed).sample(range(len(rows)), source.limit))
    return [rows[index] for index in indices]


def local_files(path: Path) -> list[Path]:
    """The file itself, or the Parquet files of a folder sorted by name."""
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: no .parquet files in this folder: name a JSONL file, or a folder of Parquet files")
    return files


def _local_rows(path: Path) -> list[Row]:
    """All rows of a JSONL file, a Parquet file, or a folder of Parquet files."""
    files = local_files(path)
    if files[0].suffix != ".parquet":
        return read_jsonl(path)
    # Imported here: pyarrow takes half a second, and most data are JSONL.
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[Row] = []
    for file in files:
        try:
            rows += pq.ParquetFile(file).read().to_pylist()
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise UserError(
                f"{file}: cannot read it as Parquet ({str(error).splitlines()[0]}): fix or replace it"
            ) from None
    return rows


def hub_rows(source: DataSource) -> Iterable[Row]:
    """All rows of a hub data set's split at its revision."""
    # Imported here: datasets takes seconds, and most stages read local files.
    import datasets

    assert source.hub is not None
    try:
        rows: Iterable[Row] = datasets.load_dataset(source.hub, revision=source.revision, split=source.split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"data set {source.hub}@{source.revision} split {source.split}: cannot load it ({reason}): "
            "check the network and the token, or give path: with a local JSONL copy"
        ) from None
    return rows


def source_name(source: DataSource) -> str:
    """Name of the source for messages and tables."""
    return source.path or f"{source.hub} {source.split}"


def _messages(row: Row, key: str) -> Messages:
    """The dialogue under a key of the row. Raises Unusable."""
    try:
        messages = [{"role": message["role"], "content": message["content"]} for message in row[key]]
    except (KeyError, TypeError):
        messages = []
    if not messages or not all(isinstance(value, str) for message in messages for value in message.values()):
        raise Unusable("malformed", f"`{key}` is missing, or has a turn without role or text")
    unknown = [message["role"] for message in messages if message["role"] not in ROLES]
    if unknown:
        raise Unusable("roles", f"`{key}` has the role {unknown[0]!r}; known roles: {', '.join(ROLES)}")
    return messages


def _check_not_empty(messages: Messages) -> Messages:
    if any(not message["content"].strip() for message in messages):
        raise Unusable("empty", "a turn is empty")
    return messages


def conversation(row: Row) -> Messages:
    """The dialogue of a row up to the last user turn: from `messages`, else from `prompt`. Raises Unusable.

    The _sft and _prefs splits of UltraFeedback and UltraChat hold whole dialogues; their _gen splits end with the user.
    """
    if row.get("messages"):
        messages = _messages(row, "messages")
    elif isinstance(row.get("prompt"), str):
        messages = [{"role": "user", "content": row["prompt"]}]
    else:
        raise Unusable("malformed", "the row has neither `messages` nor a text `prompt`")
    last = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=-1)
    if last < 0:
        raise Unusable("roles", "`messages` has no user turn")
    return _check_not_empty(messages[: last + 1])


def user_turns(messages: Messages) -> list[str]:
    """Texts of the user turns."""
    return [message["content"] for message in messages if message["role"] == "user"]


def demonstration(row: Row) -> Messages:
    """A whole dialogue that ends with the assistant (UltraChat's schema). Raises Unusable."""
    messages = _messages(row, "messages")
    if messages[-1]["role"] != "assistant":
        raise Unusable("roles", "`messages` does not end with an assistant turn: use a _sft split")
    return _check_not_empty(messages)


def preference(row: Row) -> tuple[Messages, Messages]:
    """The chosen and the rejected dialogue (UltraFeedback's schema).

    Raises Unusable, also if answers are empty or equal or have the same score: such a row holds no preference.
    """
    chosen, rejected = _messages(row, "chosen"), _messages(row, "rejected")
    if chosen[:-1] != rejected[:-1]:
        raise Unusable("mismatched", "chosen and rejected answer different dialogues")
    if any(side[-1]["role"] != "assistant" for side in (chosen, rejected)):
        raise Unusable("roles", "chosen or rejected does not end with an assistant turn")
    _check_not_empty(chosen + rejected)
    if chosen == rejected:
        raise Unusable("equal", "chosen and rejected are the same")
    if row.get("score_chosen") is not None and row["score_chosen"] == row.get("score_rejected"):
        raise Unusable("tied", "both scores are the same")
    return chosen, rejected


def convert_rows(convert: Callable[[Row], T], rows: Iterable[Row]) -> list[T | Unusable]:
    """Apply `convert` to each row; an Unusable that it raises takes the row's place."""
    results: list[T | Unusable] = []
    for row in rows:
        try:
            results.append(convert(row))
        except Unusable as unusable:
            results.append(unusable)
    return results
