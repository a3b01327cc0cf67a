"""Rows of a data set, from a local JSONL file or from the hub at a pinned revision, and what can be used of them."""

import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from salsa.errors import UserError
from salsa.sections import DataSource
from salsa.stage import read_jsonl

Row = dict[str, Any]
Messages = list[dict[str, str]]


def load_rows(source: DataSource, seed: int) -> list[Row]:
    """All rows of the source, or `limit` of them drawn with `seed`, in the source's order."""
    rows = read_jsonl(Path(source.path)) if source.path is not None else list(hub_rows(source))
    if source.limit is None or source.limit >= len(rows):
        return rows
    chosen = sorted(random.Random(seed).sample(range(len(rows)), source.limit))
    return [rows[index] for index in chosen]


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


def _messages(row: Row, key: str, where: str) -> Messages:
    """The turns under a row's key."""
    try:
        return [{"role": message["role"], "content": message["content"]} for message in row[key]]
    except (KeyError, TypeError):
        raise UserError(f"{where}: no `{key}` with a role and a content in each turn: mend the data set") from None


def blank(messages: Messages) -> bool:
    """Whether a turn says nothing."""
    return any(not message["content"].strip() for message in messages)


def conversation(row: Row, where: str = "row") -> Messages:
    """The dialogue of a row up to and with the last user's turn: `messages` cut there, else `prompt` alone.

    UltraFeedback's and UltraChat's _sft and _prefs splits hold the whole dialogue, their _gen splits end with the user.
    """
    if row.get("messages"):
        messages = _messages(row, "messages", where)
    elif isinstance(row.get("prompt"), str):
        messages = [{"role": "user", "content": row["prompt"]}]
    else:
        raise UserError(f"{where}: neither `messages` nor `prompt`: mend the data set")
    last = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=-1)
    if last < 0:
        raise UserError(f"{where}: messages hold no user turn: mend the data set")
    return messages[: last + 1]


def user_turns(messages: Messages) -> list[str]:
    """What the user said, turn by turn."""
    return [message["content"] for message in messages if message["role"] == "user"]


def demonstration(row: Row, where: str) -> Messages:
    """A whole dialogue that ends with the assistant; UltraChat's schema."""
    messages = _messages(row, "messages", where)
    if not messages or messages[-1]["role"] != "assistant":
        raise UserError(
            f"{where}: a demonstration needs `messages` that end with the assistant's turn: use a _sft split"
        )
    return messages


def preference(row: Row, where: str) -> tuple[Messages, Messages] | str:
    """The chosen and the rejected dialogue; UltraFeedback's schema. Else why the row carries no preference:
    `empty` or `equal` answers, or `tied` scores."""
    chosen, rejected = _messages(row, "chosen", where), _messages(row, "rejected", where)
    if not chosen or not rejected or chosen[:-1] != rejected[:-1]:
        raise UserError(f"{where}: chosen and rejected do not answer the same dialogue: mend the data set")
    if blank(chosen) or blank(rejected):
        return "empty"
    if chosen == rejected:
        return "equal"
    if row.get("score_chosen") is not None and row["score_chosen"] == row.get("score_rejected"):
        return "tied"
    return chosen, rejected


def preference_pairs(
    rows: list[Row], where: str = "row", first: int = 1
) -> tuple[list[tuple[int, Messages, Messages]], Counter[str]]:
    """The rows that carry a preference, as (index, chosen, rejected), and how many do not, by reason.

    A message calls them `where` and their number, from `first` on.
    """
    pairs, left_out = [], Counter[str]()
    for index, row in enumerate(rows):
        match preference(row, f"{where} {first + index}"):
            case str() as reason:
                left_out[reason] += 1
            case chosen, rejected:
                pairs.append((index, chosen, rejected))
    return pairs, left_out
