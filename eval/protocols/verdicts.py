"""Read verdicts from judges' replies. Only the requested form counts; nothing is guessed.

Judges quote the forms while they reason ("a [[A]] would need …"). Marked reasoning is removed first (reasoning.py). If
the rest holds different verdicts, the one marked as final counts ("Final verdict: [[B]]"); otherwise the reply is
unparsed. A reply that was cut at the token limit gives no verdict, because the final one may have been yet to come.
"""

import re
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeVar

from eval.protocols.reasoning import without_reasoning

T = TypeVar("T")
Side = Literal["A", "B", "tie"]
Outcome = Literal["verdict", "tie", "unparsed", "cut", "refused", "failed"]
Value = float | str | None

# Excludes indexing in quoted code, such as rows[[1]][0].
FORM = r"(?<![\w\])])\[\[\s*(%s)\s*\]\](?!\[)"
PAIR = re.compile(FORM % "[ABC]")
FIVE = re.compile(FORM % r"A\s*(?:>>|>|=|<|<<)\s*B|B\s*(?:>>|>|=|<|<<)\s*A", re.IGNORECASE)
RATING = re.compile(FORM % r"\d+(?:\.\d+)?")
# "My final verdict is that assistant B is better: [[B]]": up to eight words may stand between, but no brackets.
DECIDES = r"verdict|decision|judge?ment|rating|score|grade|choice|conclusion|answer|assessment|evaluation"
BEFORE = re.compile(rf"\bfinal\s+(?:{DECIDES})\b(?:[^\w\[\]]+(?!not\b)[\w'’]+){{0,8}}[^\w\[\]]*$", re.IGNORECASE)
AFTER = re.compile(r"[\s*_]*(?:\(final\b|(?:is|as|being) (?:my|the) final\b)", re.IGNORECASE)
NEAR = 160  # characters before a verdict that are searched for "final"
# finish_reason at the token limit: OpenAI's name, Anthropic's, Mistral's.
CUT_REASONS = ("length", "max_tokens", "model_length")
API_ERROR = "$ERROR$"  # stored by FastChat and Arena-Hard for a failed call, possibly after the text of a first one
REFUSAL = re.compile(
    r"\W*(?:(?:i['’]?m|i am)(?: \w+)? sorry|sorry|i apologi[sz]e|i(?:['’]m| am) (?:unable|not able)|"
    r"i (?:can(?:no|['’])t|won['’]t|will not))\b",
    re.IGNORECASE,
)


class Verdict(NamedTuple):
    """Which position won, and whether clearly (>>)."""

    side: Side
    strong: bool = False


def marked_final(text: str, match: re.Match[str]) -> bool:
    """Whether the text calls this verdict final."""
    before = text[max(0, match.start() - NEAR) : match.start()]
    return bool(BEFORE.search(before) or AFTER.match(text, match.end()))


def unique_verdict(text: str, form: re.Pattern[str], read: Callable[[str], T]) -> T | None:
    """The only verdict of this form in a text, or the only one marked final; None otherwise."""
    text = without_reasoning(text)
    verdicts = [(read(match[1]), marked_final(text, match)) for match in form.finditer(text)]
    for candidates in ({value for value, _ in verdicts}, {value for value, final in verdicts if final}):
        if len(candidates) == 1:
            return candidates.pop()
    return None


def canonical(label: str) -> str:
    """Normalise to A>>B, A>B, A=B, B>A or B>>A: ignores case and spaces, and turns b << a and B=A round."""
    label = "".join(label.upper().split())
    if "=" in label:
        return "A=B"
    return label[::-1].replace("<", ">") if "<" in label else label


def pair_label(text: str) -> str | None:
    """A, B or C (a tie) from [[A]], [[B]], [[C]]; None without a verdict."""
    return unique_verdict(text, PAIR, str)


def five_label(text: str) -> str | None:
    """One of the five labels of Arena-Hard, as `canonical` writes it; None without a verdict."""
    return unique_verdict(text, FIVE, canonical)


def rating(text: str) -> float | None:
    """The rating in [[7]] or [[8.5]]; None without one, or if it is not within 1 to 10."""
    value = unique_verdict(text, RATING, float)
    return value if value is not None and 1 <= value <= 10 else None


def verdict(label: str) -> Verdict:
    """The verdict that a label of either protocol stands for."""
    if label in ("C", "A=B"):
        return Verdict("tie")
    return Verdict("A" if label[0] == "A" else "B", ">>" in label)


def label(grammar: str, winner: str, order: str, strong: bool) -> str:
    """The label for `winner`, when the sides in `order` were shown first and second; a tie if it is neither."""
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
TIES = {"C": None, "A=B": "A=B"}  # labels of a tie, and the value that stands for them


def is_cut(finish_reason: str | None) -> bool:
    """Whether a reply was cut at the token limit."""
    return (finish_reason or "").lower() in CUT_REASONS


def read(protocol: str, text: str | None, finish_reason: str | None = None) -> tuple[Outcome, Value]:
    """Read a judge's reply: its outcome, and its value (a rating, "A", "B" or one of the five labels)."""
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
