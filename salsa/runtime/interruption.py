"""Being asked to stop: a SIGTERM from a cluster or a spot machine is noted, and answered when the work is safe."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

from salsa.runtime.log import log


@contextlib.contextmanager
def sigterm_noted() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether a SIGTERM has come; inside, it ends nothing by itself."""
    asked = threading.Event()

    def note(*_: object) -> None:
        asked.set()
        log.warning("SIGTERM: stopping after this step")

    previous = signal.signal(signal.SIGTERM, note)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, previous)
