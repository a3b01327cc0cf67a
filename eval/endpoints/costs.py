"""What judge calls cost: of a reply, from the tokens that it states; of a prompt, from its length."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from salsa.config.judge import Judge

# English prose. Before a judge has answered there is nothing better: its tokenizer may not be public.
BYTES_PER_TOKEN = 4.0
# What chat formats add to each message, at most.
MESSAGE_TOKENS = 8
# A comparison with its reasons, before any is seen.
ANSWER_TOKENS = 300.0
# Prompts with the very same number of tokens, though the longest has so much more text than the shortest.
CUT_PROMPTS, CUT_SPREAD = 3, 1.25
Messages = Sequence[Mapping[str, str]]
Usage = Mapping[str, Any]


def price(settings: Judge, asked: float, answered: float) -> float | None:
    """In the prices' currency; None without prices."""
    if settings.input_price is None or settings.output_price is None:
        return None
    return (asked * settings.input_price + answered * settings.output_price) / 1e6


def cost(settings: Judge, usage: Usage | None) -> float | None:
    """What a call cost; None where prices or tokens are not known."""
    return price(settings, usage["prompt_tokens"], usage["completion_tokens"]) if usage else None


def size(messages: Messages) -> int:
    """A conversation's length in bytes of UTF-8."""
    return sum(len(message["content"].encode()) for message in messages)


def most_tokens(messages: Messages) -> int:
    """More than any tokenizer makes of a conversation: those in use have no token without a byte of the text."""
    return size(messages) + MESSAGE_TOKENS * (len(messages) + 1)


def cut_at(entries: Iterable[Mapping[str, Any]]) -> int | None:
    """The number of tokens at which an endpoint seems to cut prompts without a word; None where nothing hints at it.

    Where several prompts of unlike lengths (by `CUT_SPREAD`) have the same number of tokens by the endpoint's own
    count, and none has more, what was over it was thrown away.
    """
    asked = [(entry["usage"]["prompt_tokens"], size(entry["messages"])) for entry in entries if entry["usage"]]
    most = max((tokens for tokens, _ in asked), default=0)
    longest = [length for tokens, length in asked if tokens == most]
    cut = most > 0 and len(longest) >= CUT_PROMPTS and max(longest) > CUT_SPREAD * min(longest)
    return most if cut else None


class Sizes:
    """How many tokens this judge has made of a byte, and answered with: means over the calls seen so far."""

    def __init__(self, entries: Iterable[Mapping[str, Any]] = ()):
        self.calls = self.asked_bytes = self.asked = self.answered = 0
        for entry in entries:
            self.see(entry)

    def see(self, entry: Mapping[str, Any]) -> None:
        usage = entry["usage"]
        if usage:
            self.calls += 1
            self.asked_bytes += size(entry["messages"])
            self.asked += usage["prompt_tokens"]
            self.answered += usage["completion_tokens"]

    def prompt(self, size: int) -> int:
        """Expected tokens of a prompt of so many bytes."""
        return math.ceil(size * self.asked / self.asked_bytes if self.asked_bytes else size / BYTES_PER_TOKEN)

    def answer(self, most: int) -> int:
        """Expected tokens of an answer."""
        return math.ceil(min(most, self.answered / self.calls if self.calls else ANSWER_TOKENS))
