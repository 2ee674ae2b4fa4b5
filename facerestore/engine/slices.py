"""A batch in slices: as much memory as one of them takes, and the gradients of the whole.

A method is written as one walk through its phases, and a phase may look at what an earlier one has changed.  So the slices
cannot walk one after the other: all of them must be through a phase before its networks step.  Each slice therefore has a
thread of its own in which it walks through the method.  Only one of them moves at a time: it goes on to where all have to
meet, the end of a phase or a mean over the whole batch, and lets the next one follow.  The order is always the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

import torch

T = TypeVar("T")


class Slices:
    """Walks `count` slices through the same work, and has them meet on the way.

    Args:
        count: how many slices; one walks in the thread that asks for it
        device: where they compute
    """

    def __init__(self, count: int = 1, device: torch.device | None = None):
        self.count, self.device = count, device
        self._threads: ThreadPoolExecutor | None = None
        self._own = threading.local()
        self._moved = threading.Condition()
        self._turn = 0
        self._failure: BaseException | None = None
        self._arrived: list[tuple[Any, Any]] = []
        self._settled: Any = None

    @property
    def current(self) -> int:
        """The slice that is walking."""
        return getattr(self._own, "index", 0)

    def run(self, work: Callable[[int], None]) -> None:
        """`work(i)` for every slice i.  The first error of any of them ends all, and is raised here."""
        if self.count == 1:
            return work(0)
        if self._threads is None:  # they are kept: a thread's own workers (OpenMP) are dear to start
            self._threads = ThreadPoolExecutor(self.count, "slice", self._start_thread)
        self._turn, self._failure, self._arrived = 0, None, []
        walks = [self._threads.submit(self._walk, i, work) for i in range(self.count)]
        try:
            wait(walks)
        except BaseException as interruption:
            self._fail(interruption)
            raise
        if self._failure is not None:
            raise self._failure

    def meet(self, where: Any, value: Any, settle: Callable[[list[Any]], T]) -> T:
        """Wait until all slices are here; what `settle` makes of their values, once for all of them, comes back."""
        if self.count == 1:
            return settle([value])
        index = self.current
        self._arrive(where, value, settle)
        self._pass_on((index + 1) % self.count)
        self._wait_for(index)
        return self._settled

    def _arrive(self, where: Any, value: Any, settle: Callable[[list[Any]], Any]) -> None:
        self._arrived.append((where, value))
        if len(self._arrived) == self.count:
            arrived, self._arrived = self._arrived, []
            if any(place != where for place, _ in arrived):
                raise RuntimeError(
                    f"the slices of a batch went different ways ({[place for place, _ in arrived]}): a method's decisions "
                    "must come from the iteration and from draw_shared alone"
                )
            self._settled = settle([v for _, v in arrived])

    def _walk(self, index: int, work: Callable[[int], None]) -> None:
        self._own.index = index
        try:
            self._wait_for(index)
            work(index)
            self._arrive("end", None, lambda _: None)
            self._pass_on(index + 1)
        except BaseException as error:
            self._fail(error)

    def _wait_for(self, index: int) -> None:
        with self._moved:
            self._moved.wait_for(lambda: self._turn == index or self._failure is not None)
        if self._failure is not None:
            raise RuntimeError("another slice of the batch failed")

    def _pass_on(self, index: int) -> None:
        with self._moved:
            self._turn = index
            self._moved.notify_all()

    def _fail(self, error: BaseException) -> None:
        with self._moved:
            self._failure = self._failure or error
            self._moved.notify_all()

    def _start_thread(self) -> None:
        if self.device is not None and self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # each thread has a current device of its own
