"""Costs of judge calls: from the token counts of a reply, or estimated from the length of a prompt."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from salsa.config.judge import Judge

# For English prose, until the judge has answered: its tokenizer may not be public.
BYTES_PER_TOKEN = 4.0
# Most tokens that a chat format adds to a message.
MESSAGE_TOKENS = 8
# Length of a comparison with reasons, until one is seen.
ANSWER_TOKENS = 300.0
# See `cut_at`: this many prompts with one token count, although their lengths differ by this factor.
CUT_PROMPTS, CUT_SPREAD = 3, 1.25
Messages = Sequence[Mapping[str, str]]
Usage = Mapping[str, Any]


def price(settings: Judge, prompt_tokens: float, reply_tokens: float) -> float | None:
    """Cost in the prices' currency; None without prices."""
    if settings.input_price is None or settings.output_price is None:
        return None
    return (prompt_tokens * settings.input_price + reply_tokens * settings.output_price) / 1e6


def cost(settings: Judge, usage: Usage | None) -> float | None:
    """Cost of a finished call; None if prices or token counts are unknown."""
    return price(settings, usage["prompt_tokens"], usage["completion_tokens"]) if usage else None


def size(messages: Messages) -> int:
    """Length of the messages in bytes of UTF-8."""
    return sum(len(message["content"].encode()) for message in messages)


def most_tokens(messages: Messages) -> int:
    """An upper bound on the tokens of the messages: every token in use covers at least one byte."""
    return size(messages) + MESSAGE_TOKENS * (len(messages) + 1)


def cut_at(entries: Iterable[Mapping[str, Any]]) -> int | None:
    """The number of tokens at which an endpoint seems to truncate prompts silently; None if nothing suggests it.

    The sign: by the endpoint's own count, several prompts whose lengths differ (by `CUT_SPREAD`) have the same number
    of tokens, and no prompt has more.
    """
    prompts = [(entry["usage"]["prompt_tokens"], size(entry["messages"])) for entry in entries if entry["usage"]]
    most = max((tokens for tokens, _ in prompts), default=0)
    longest = [length for tokens, length in prompts if tokens == most]
    cut = most > 0 and len(longest) >= CUT_PROMPTS and max(longest) > CUT_SPREAD * min(longest)
    return most if cut else None


class Sizes:
    """Expected tokens of prompts and replies, from the means over the calls seen so far."""

    def __init__(self, entries: Iterable[Mapping[str, Any]] = ()):
        self.calls = self.prompt_bytes = self.prompt_tokens = self.reply_tokens = 0
        for entry in entries:
            self.see(entry)

    def see(self, entry: Mapping[str, Any]) -> None:
        """Include a finished call in the means."""
        usage = entry["usage"]
        if usage:
            self.calls += 1
            self.prompt_bytes += size(entry["messages"])
            self.prompt_tokens += usage["prompt_tokens"]
            self.reply_tokens += usage["completion_tokens"]

    def prompt(self, size: int) -> int:
        """Expected tokens of a prompt of `size` bytes."""
        return math.ceil(size * self.prompt_tokens / self.prompt_bytes if self.prompt_bytes else size / BYTES_PER_TOKEN)

    def answer(self, most: int) -> int:
        """Expected tokens of a reply, at most `most`."""
        return math.ceil(min(most, self.reply_tokens / self.calls if self.calls else ANSWER_TOKENS))
