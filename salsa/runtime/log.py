"""The program's log, and progress through a long loop."""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
LINES_IN_A_LOG = 10
log = logging.getLogger("salsa")


def steps(items: Sequence[T], what: str, figures: Callable[[], dict[str, float]], done: int = 0) -> Iterator[T]:
    """The items after the `done` first, with a progress bar on a terminal, or a line now and then in a log file."""
    if sys.stderr.isatty() and log.isEnabledFor(logging.INFO):
        bar = tqdm(items[done:], desc=what, leave=False, initial=done, total=len(items))
        for item in bar:
            yield item
            bar.set_postfix(figures(), refresh=False)
        return
    every = max(1, len(items) // LINES_IN_A_LOG)
    for number, item in enumerate(items[done:], done + 1):
        yield item
        if number % every == 0 or number == len(items):
            text = " ".join(f"{name} {value:.4g}" for name, value in figures().items())
            log.info("%s %d/%d %s", what, number, len(items), text)
