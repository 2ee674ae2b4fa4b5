"""How fast a training goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """How fast iterations go, and what share of the time they wait for data."""

    def __init__(self) -> None:
        self.started = self.mark = time.perf_counter()
        self.waiting, self.iterations = 0.0, 0  # since the last reading

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens within takes no time."""
        start = time.perf_counter()
        yield
        self.started += time.perf_counter() - start

    def waited(self) -> None:
        """A batch has come: an iteration begins."""
        self.waiting += time.perf_counter() - self.mark
        self.iterations += 1

    def stepped(self) -> None:
        """The iteration is over: the wait for the next batch begins."""
        self.mark = time.perf_counter()

    def read(self) -> tuple[float, float]:
        """Iterations a second and the share spent waiting, since the last call."""
        elapsed = max(time.perf_counter() - self.started, 1e-9)
        result = self.iterations / elapsed, self.waiting / elapsed
        self.started, self.waiting, self.iterations = time.perf_counter(), 0.0, 0
        return result
