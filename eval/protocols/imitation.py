"""Detect answers that imitate a verdict or the markers of a judge prompt.

A policy that writes `[[A]]`, or that closes its answer with the prompt's end marker and continues as the judge, may be
hacking the judge. Such answers are judged unchanged, and counted.
"""

from collections.abc import Sequence
from functools import cache

from eval.protocols.templates import PLACE, Template
from eval.protocols.verdicts import FORMS


@cache
def marks(template: Template) -> frozenset[str]:
    """The marker lines of a judge prompt, such as `[User Question]` or `### User:`."""
    lines = {line.strip() for line in template.user.splitlines() if not PLACE.search(line)}
    return frozenset(line for line in lines if line and not line[0].isalnum())


def imitates(answers: Sequence[str], grammar: str, template: Template | None) -> bool:
    """Whether any answer contains a verdict in this grammar, or a marker of the judge prompt."""
    markers = marks(template) if template is not None else ()
    return any(FORMS[grammar].search(text) or any(marker in text for marker in markers) for text in answers)
