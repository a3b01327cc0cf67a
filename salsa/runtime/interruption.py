"""Defer SIGTERM (from a cluster or a spot machine) until the current step is finished."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

from salsa.runtime.log import log


@contextlib.contextmanager
def defer_sigterm() -> Iterator[Callable[[], bool]]:
    """Catch SIGTERM inside the block. Yields a function that returns whether one has arrived."""
    requested = threading.Event()

    def note(*_: object) -> None:
        requested.set()
        log.warning("SIGTERM: stopping after this step")

    previous = signal.signal(signal.SIGTERM, note)
    try:
        yield requested.is_set
    finally:
        signal.signal(signal.SIGTERM, previous)
