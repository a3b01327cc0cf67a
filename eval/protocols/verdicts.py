"""Verdicts in judges' texts: only the form that was asked for counts, and a text is never guessed at.

Judges quote the forms while they reason ("a [[A]] would need …"). Reasoning between a model's own marks is left out
first (reasoning.py). Of different verdicts in the rest, the one that the text marks as final counts ("Final
verdict: [[B]]"); without such a mark, or with two that differ, the text is unparsed. A text that ended at the limit of
its tokens is cut, whatever it holds: its verdict may have been about to follow.
"""

import re
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeVar

from eval.protocols.reasoning import without_reasoning

T = TypeVar("T")
Side = Literal["A", "B", "tie"]
Outcome = Literal["verdict", "tie", "unparsed", "cut", "refused", "failed"]
Value = float | str | None

# Not an element of an element, as in quoted code: rows[[1]][0].
FORM = r"(?<![\w\])])\[\[\s*(%s)\s*\]\](?!\[)"
PAIR = re.compile(FORM % "[ABC]")
FIVE = re.compile(FORM % r"A\s*(?:>>|>|=|<|<<)\s*B|B\s*(?:>>|>|=|<|<<)\s*A", re.IGNORECASE)
RATING = re.compile(FORM % r"\d+(?:\.\d+)?")
# "My final verdict is that assistant B is better: [[B]]": a few words may stand in between, but no other brackets.
DECIDES = r"verdict|decision|judge?ment|rating|score|grade|choice|conclusion|answer|assessment|evaluation"
BEFORE = re.compile(rf"\bfinal\s+(?:{DECIDES})\b(?:[^\w\[\]]+(?!not\b)[\w'’]+){{0,8}}[^\w\[\]]*$", re.IGNORECASE)
AFTER = re.compile(r"[\s*_]*(?:\(final\b|(?:is|as|being) (?:my|the) final\b)", re.IGNORECASE)
NEAR = 160  # characters before a verdict in which its mark is looked for
# What endpoints call an end at the limit of tokens: OpenAI's name, Anthropic's, Mistral's.
CUT_REASONS = ("length", "max_tokens", "model_length")
API_ERROR = "$ERROR$"  # what FastChat and Arena-Hard store for a failed call, after a text where it was the second
REFUSAL = re.compile(
    r"\W*(?:(?:i['’]?m|i am)(?: \w+)? sorry|sorry|i apologi[sz]e|i(?:['’]m| am) (?:unable|not able)|"
    r"i (?:can(?:no|['’])t|won['’]t|will not))\b",
    re.IGNORECASE,
)


class Verdict(NamedTuple):
    """Which position won, and whether by much."""

    side: Side
    strong: bool = False


def marked_final(text: str, found: re.Match[str]) -> bool:
    """Whether the text says of a verdict that it is the final one."""
    before = text[max(0, found.start() - NEAR) : found.start()]
    return bool(BEFORE.search(before) or AFTER.match(text, found.end()))


def only(text: str, form: re.Pattern[str], read: Callable[[str], T]) -> T | None:
    """The verdict of a text in that form; of several that differ, the one marked final; else None."""
    text = without_reasoning(text)
    found = [(read(match[1]), marked_final(text, match)) for match in form.finditer(text)]
    for candidates in ({value for value, _ in found}, {value for value, final in found if final}):
        if len(candidates) == 1:
            return candidates.pop()
    return None


def canonical(label: str) -> str:
    """One of A>>B, A>B, A=B, B>A, B>>A: lower case, spaces and the other way round (b << a, B=A) mean the same."""
    label = "".join(label.upper().split())
    if "=" in label:
        return "A=B"
    return label[::-1].replace("<", ">") if "<" in label else label


def pair_label(text: str) -> str | None:
    """A, B or C (a tie), from [[A]], [[B]], [[C]]; None if there is none."""
    return only(text, PAIR, str)


def five_label(text: str) -> str | None:
    """One of the five labels, as `canonical` writes it; None if there is none."""
    return only(text, FIVE, canonical)


def rating(text: str) -> float | None:
    """[[7]] or [[8.5]], from 1 to 10; None if there is none, or it is out of range."""
    found = only(text, RATING, float)
    return found if found is not None and 1 <= found <= 10 else None


def verdict(label: str) -> Verdict:
    """What a label of either protocol says of the positions."""
    if label in ("C", "A=B"):
        return Verdict("tie")
    return Verdict("A" if label[0] == "A" else "B", ">>" in label)


def label(grammar: str, winner: str, order: str, strong: bool) -> str:
    """The label that says that `winner` won, the sides of `order` standing first and second; for neither, a tie."""
    five = grammar == "arena_hard"
    if winner not in order:
        return "A=B" if five else "C"
    side, other = ("A", "B") if winner == order[0] else ("B", "A")
    return side + (">>" if strong else ">") + other if five else side


FORMS = {"mt_bench_single": RATING, "mt_bench_pair": PAIR, "arena_hard": FIVE}
READERS: dict[str, Callable[[str], Value]] = {
    "mt_bench_single": rating,
    "mt_bench_pair": pair_label,
    "arena_hard": five_label,
}
TIES = {"C": None, "A=B": "A=B"}  # and what stands for them as a value


def is_cut(finish_reason: str | None) -> bool:
    """Whether a reply ended at the limit of its tokens."""
    return (finish_reason or "").lower() in CUT_REASONS


def read(protocol: str, text: str | None, finish_reason: str | None = None) -> tuple[Outcome, Value]:
    """What a judge's text says: its outcome, and a rating, "A", "B" or one of the five labels."""
    if text is None:
        return "failed", None
    if is_cut(finish_reason):
        return "cut", None
    value = READERS[protocol](text)
    if value is None and text.rstrip().endswith(API_ERROR):
        return "failed", None
    if value is None:
        return ("refused" if REFUSAL.match(without_reasoning(text)) else "unparsed"), None
    return ("tie", TIES[value]) if isinstance(value, str) and value in TIES else ("verdict", value)
