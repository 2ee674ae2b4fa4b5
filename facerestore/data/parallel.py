"""A function over many items in several processes, results in the items' order, few of them waiting in memory."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import cv2

from facerestore.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD = 4  # items that are begun before they are asked for, for each process

_function: Callable[[Any], Any]  # in a worker: what it computes


def parallel_map(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """`map(function, items)` in `workers` processes; in this one where there is one alone.

    The workers end with this process, also where it is killed.

    Raises:
        UserError: a worker was killed; and what `function` raises
    """
    if workers <= 1:
        yield from map(function, items)
        return
    with ProcessPoolExecutor(workers, initializer=_start, initargs=(function,)) as pool:
        begun: deque[Future[Result]] = deque()
        try:
            for item in items:
                begun.append(pool.submit(_apply, item))
                if len(begun) > AHEAD * workers:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        except BrokenProcessPool:
            raise UserError("a worker process is gone, most likely because memory ran out: give fewer --workers") from None
        finally:
            for future in begun:
                future.cancel()


def _start(function: Callable[[Any], Any]) -> None:
    """The function is sent once, not with each item: it may hold the list of all files."""
    global _function
    _function = function
    cv2.setNumThreads(0)  # the processes themselves are the parallelism
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process answers it
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _apply(item: Any) -> Any:
    return _function(item)
