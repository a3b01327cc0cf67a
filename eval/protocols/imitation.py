"""Answers that imitate what a judge's verdict is read from or its prompt is made of.

A policy that writes `[[A]]`, or closes its answer with the prompt's own mark and goes on in the judge's name, may be
learning to win by that. Such answers are shown to the judge as they are, and counted.
"""

from collections.abc import Sequence
from functools import cache

from eval.protocols.templates import PLACE, Template
from eval.protocols.verdicts import FORMS


@cache
def marks(template: Template) -> frozenset[str]:
    """The lines of a judge's prompt that mark where something begins or ends: `[User Question]`, `### User:`."""
    lines = {line.strip() for line in template.user.splitlines() if not PLACE.search(line)}
    return frozenset(line for line in lines if line and not line[0].isalnum())


def imitates(answers: Sequence[str], grammar: str, template: Template | None) -> bool:
    """Whether one of the answers holds a verdict in the grammar's form, or a mark of the judge's prompt."""
    found = marks(template) if template is not None else ()
    return any(FORMS[grammar].search(text) or any(mark in text for mark in found) for text in answers)
