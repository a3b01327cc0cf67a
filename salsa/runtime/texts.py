"""Texts from outside: what they may hold that our files cannot."""

import logging
import re
from typing import Any

# Control characters but for tab and line feed, and those that change the direction of text.
COMMANDING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def without_lone_surrogates(value: Any) -> Any:
    """JSON with U+FFFD in place of each lone surrogate: half an emoji, which JSON can hold and UTF-8 cannot."""
    if isinstance(value, str):
        return LONE_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, list):
        return [without_lone_surrogates(one) for one in value]
    if isinstance(value, dict):
        return {without_lone_surrogates(key): without_lone_surrogates(one) for key, one in value.items()}
    return value


def visible(text: str) -> str:
    """The text with escapes in place of characters that command a terminal or turn text round; lines stay lines."""
    return COMMANDING.sub(lambda found: f"\\u{ord(found[0]):04x}", text.replace("\r\n", "\n"))


class VisibleFormatter(logging.Formatter):
    """Log lines may quote what an endpoint or a file says."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))
