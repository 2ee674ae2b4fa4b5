"""How a training is asked to stop: SIGTERM, as schedulers send it, and Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from facerestore.engine import distributed
from facerestore.engine.distributed import World
from facerestore.engine.logs import logger


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that is filled when SIGTERM or SIGINT asks to stop; a second SIGINT stops at once."""
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)
        logger.info("%s: stopping after this iteration", signal.Signals(number).name)

    before = {s: signal.signal(s, note) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_code(received: Sequence[int], world: World) -> int:
    """The exit code of a program that one of the `received` signals of any process ended: 143 after SIGTERM, 130 after SIGINT.

    All processes must call it, and have the same.
    """
    return 128 + max(number for numbers in distributed.gather(list(received), world) for number in numbers)
