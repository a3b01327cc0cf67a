"""Verdicts in judges' texts. Only the form that was asked for counts, and the last one in the text is the verdict.

Judges quote the forms while they reason ("a [[A]] would need …") and end with what they decide. A text without the form
is unparsed: it is never guessed at.
"""

import re
from typing import Literal, NamedTuple

Side = Literal["A", "B", "tie"]

PAIR = re.compile(r"\[\[(A|B|C)\]\]")
FIVE = re.compile(r"\[\[(A>>B|A>B|A=B|B>A|B>>A)\]\]")
RATING = re.compile(r"\[\[(\d+(?:\.\d+)?)\]\]")


class Verdict(NamedTuple):
    """Which position won, and whether by much."""

    side: Side
    strong: bool = False


def pair_verdict(text: str) -> Verdict | None:
    """[[A]], [[B]] or [[C]] (a tie); None if there is none."""
    found = PAIR.findall(text)
    sides: dict[str, Side] = {"A": "A", "B": "B", "C": "tie"}
    return Verdict(sides[found[-1]]) if found else None


def five_verdict(text: str) -> Verdict | None:
    """[[A>>B]] … [[B>>A]]; None if there is none."""
    found = FIVE.findall(text)
    if not found:
        return None
    label = found[-1]
    return Verdict("tie" if "=" in label else label[0], ">>" in label)


def rating(text: str) -> float | None:
    """[[7]] or [[8.5]], from 1 to 10; None if there is none, or it is out of range."""
    found = RATING.findall(text)
    if not found or not 1 <= float(found[-1]) <= 10:
        return None
    return float(found[-1])
