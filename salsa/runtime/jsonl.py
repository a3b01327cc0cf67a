"""JSONL files: one JSON object a line, UTF-8."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from salsa.runtime.errors import UserError
from salsa.runtime.texts import without_lone_surrogates

ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]], mode: Literal["w", "a"] = "w") -> None:
    """One JSON object a line, UTF-8, keys in the order given; mode "a" adds them to the file."""
    with path.open(mode, encoding="utf-8") as handle:
        for row in rows:
            handle.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file; a broken line is the user's error and is named.

    UTF-8, with or without a byte order mark; a lone surrogate becomes U+FFFD.
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
                raise UserError(f"{path}:{number}: not UTF-8 ({error}): convert the file, or remove the line") from None
            except ValueError as error:
                raise UserError(f"{path}:{number}: not JSON ({error}): mend or remove the line") from None
            if not isinstance(row, dict):
                raise UserError(f"{path}:{number}: a JSON object is expected, not {type(row).__name__}: mend the line")
            rows.append(without_lone_surrogates(row) if ESCAPED_SURROGATE.search(text) else row)
    return rows
