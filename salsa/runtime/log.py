"""The program's logger, and progress of long loops."""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
LINES_IN_A_LOG = 10
log = logging.getLogger("salsa")
# On a CPU it warns, whenever trl or peft imports it, that it found no fast kernel.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def steps(items: Sequence[T], what: str, figures: Callable[[], dict[str, float]], done: int = 0) -> Iterator[T]:
    """Iterate over `items[done:]` with a progress bar on a terminal, or ten log lines otherwise.

    `figures` returns the values shown beside the progress.
    """
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
