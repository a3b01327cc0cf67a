"""Rows of a data set, from a local JSONL file or from the hub at a pinned revision."""

import random
from pathlib import Path
from typing import Any

from salsa.errors import UserError
from salsa.sections import DataSource
from salsa.stage import read_jsonl

Row = dict[str, Any]


def load_rows(source: DataSource, seed: int) -> list[Row]:
    """All rows of the source, or `limit` of them drawn with `seed`, in the source's order."""
    rows = read_jsonl(Path(source.path)) if source.path is not None else _hub_rows(source)
    if source.limit is None or source.limit >= len(rows):
        return rows
    chosen = sorted(random.Random(seed).sample(range(len(rows)), source.limit))
    return [rows[index] for index in chosen]


def _hub_rows(source: DataSource) -> list[Row]:
    # datasets takes seconds to import, and most stages read local files.
    import datasets

    assert source.hub is not None
    try:
        return list(datasets.load_dataset(source.hub, revision=source.revision, split=source.split))
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"data set {source.hub}@{source.revision} split {source.split}: cannot load it ({reason}): "
            "check the network and the token, or give path: with a local JSONL copy"
        ) from None


def conversation(row: Row) -> list[dict[str, str]]:
    """The dialogue of a row up to and with the last user's turn: `messages` cut there, else `prompt` alone."""
    messages = row.get("messages") or [{"role": "user", "content": row["prompt"]}]
    last = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=-1)
    if last < 0:
        raise UserError(f"row {row.get('prompt_id', '?')}: messages hold no user turn: mend the data set")
    return [{"role": message["role"], "content": message["content"]} for message in messages[: last + 1]]


def user_turns(messages: list[dict[str, str]]) -> list[str]:
    """What the user said, turn by turn."""
    return [message["content"] for message in messages if message["role"] == "user"]


def demonstration(row: Row, where: str) -> list[dict[str, str]]:
    """A whole dialogue that ends with the assistant; UltraChat's schema."""
    messages = row.get("messages")
    if not messages or messages[-1]["role"] != "assistant":
        raise UserError(
            f"{where}: a demonstration needs `messages` that end with the assistant's turn: use a _sft split"
        )
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def preference_pairs(rows: list[Row]) -> tuple[list[Row], int]:
    """Pairs for a reward model as {prompt, chosen, rejected} message lists, and how many rows were dropped.

    Dropped are ties (equal scores) and pairs of identical or empty answers: they carry no preference.
    """
    pairs = []
    for row in rows:
        chosen, rejected = row["chosen"][-1]["content"], row["rejected"][-1]["content"]
        tied = row.get("score_chosen") is not None and row["score_chosen"] == row["score_rejected"]
        if tied or chosen == rejected or not chosen.strip() or not rejected.strip():
            continue
        pairs.append({"prompt": row["chosen"][:-1], "chosen": row["chosen"][-1:], "rejected": row["rejected"][-1:]})
    return pairs, len(rows) - len(pairs)
