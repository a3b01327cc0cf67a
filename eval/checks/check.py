"""What a check is."""

from collections.abc import Callable
from dataclasses import dataclass

TRY_SECONDS = 15.0  # for a reply from elsewhere
PREPARE = "run snakemake prepare on a machine that has a network and shares this folder"


class NotChecked(Exception):
    """There is nothing to look at, or not here; the text says why."""


@dataclass(frozen=True)
class Check:
    """`look` returns what it found, if all is well. Else it raises a UserError that says what to do, or NotChecked."""

    topic: str
    what: str
    look: Callable[[], str]
