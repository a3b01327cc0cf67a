"""The type of a check."""

from collections.abc import Callable
from dataclasses import dataclass

TRY_SECONDS = 15.0  # for one reply over the network
PREPARE = "run snakemake prepare on a machine that has a network and shares this folder"


class NotChecked(Exception):
    """The check does not apply, or cannot run on this machine; the text says why."""


@dataclass(frozen=True)
class Check:
    """`run` returns its finding. It raises UserError with the remedy if the check fails, and NotChecked if it cannot
    run."""

    topic: str
    subject: str
    run: Callable[[], str]
