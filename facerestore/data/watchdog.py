"""Says which picture a process is waiting for, when a storage hangs.

A read from a dead network disk cannot be interrupted, and from outside only shows as a run that stands still.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

log = logging.getLogger("facerestore")


@dataclass
class Read:
    what: str
    since: float = field(default_factory=time.monotonic)
    named: int = 0  # how often in the log


class Watchdog:
    """One thread that watches what all others of the process are reading; it starts with the first read.

    Args:
        patience: seconds after which a read is named in the log, and again after each further such time
    """

    def __init__(self, patience: float = 60):
        self.patience = patience
        self._reading: dict[int, Read] = {}  # by thread
        self._thread: threading.Thread | None = None

    @contextmanager
    def watching(self, what: str) -> Iterator[None]:
        """While the body runs, `what` is being read."""
        if self._thread is None or not self._thread.is_alive():  # a forked process begins without it
            self._reading.clear()
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()
        me = threading.get_ident()
        self._reading[me] = Read(what)
        try:
            yield
        finally:
            self._reading.pop(me, None)

    def _watch(self) -> None:
        while True:
            time.sleep(self.patience / 2)
            for read in tuple(self._reading.values()):
                elapsed = time.monotonic() - read.since
                if elapsed >= self.patience * (read.named + 1):
                    read.named += 1
                    log.warning("%s has been read for %.0f seconds now: its disk hangs, or is slow", read.what, elapsed)


watchdog = Watchdog()
