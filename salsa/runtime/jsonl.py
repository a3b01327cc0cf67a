"""Read and write JSONL files: one JSON object per line, UTF-8."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from salsa.runtime.errors import UserError
from salsa.runtime.texts import without_lone_surrogates

ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]], mode: Literal["w", "a"] = "w") -> None:
    """Write one JSON object per line, keys in the given order. Mode "a" appends."""
    with path.open(mode, encoding="utf-8") as handle:
        for row in rows:
            handle.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read all objects of a JSONL file. A UserError names the first line that is not UTF-8 or not a JSON object.

    A byte order mark is skipped; lone surrogates become U+FFFD.
    """
    rows = []
    try:
        handle = path.open("rb")
    except OSError as error:
        raise UserError(f"{path}: cannot read it: {error.strerror}; correct the path or make the file") from None
    with handle:
        for number, line in enumerate(handle, 1):
            if not line.strip():
                continue
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                row = json.loads(text)
            except UnicodeDecodeError as error:
                raise UserError(f"{path}:{number}: not UTF-8 ({error}): convert the file or remove the line") from None
            except ValueError as error:
                raise UserError(f"{path}:{number}: not JSON ({error}): fix or remove the line") from None
            if not isinstance(row, dict):
                raise UserError(f"{path}:{number}: expected a JSON object, not {type(row).__name__}: fix the line")
            rows.append(without_lone_surrogates(row) if ESCAPED_SURROGATE.search(text) else row)
    return rows
