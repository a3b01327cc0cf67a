"""Counts with their nouns; text from models, judges and data files without lone surrogates or terminal escapes."""

import logging
import re
from typing import Any

# Control characters except tab and line feed, and the controls of bidirectional text.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def counted(count: int, noun: str) -> str:
    """`1 model`, `3 models`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def without_lone_surrogates(value: Any) -> Any:
    """Replace lone surrogates (half an emoji) by U+FFFD in a JSON value. JSON can escape them; UTF-8 cannot."""
    if isinstance(value, str):
        return LONE_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, list):
        return [without_lone_surrogates(element) for element in value]
    if isinstance(value, dict):
        return {without_lone_surrogates(key): without_lone_surrogates(element) for key, element in value.items()}
    return value


def visible(text: str) -> str:
    """Escape control characters so that the text cannot drive a terminal. Line feeds and tabs stay."""
    return CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text.replace("\r\n", "\n"))


class VisibleFormatter(logging.Formatter):
    """Escapes control characters in log lines, which may quote an endpoint's reply or a file."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))
