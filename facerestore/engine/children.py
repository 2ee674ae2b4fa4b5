"""train.py and test.py as processes of their own, which hear the signals that ask this one to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from facerestore.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)  # exit codes


class StoppedError(UserError):
    """A program was asked to stop, and has; `exit_code` says by what."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


def program(name: str, options: str, overrides: Iterable[str], processes: int) -> list[str]:
    """The command that runs train.py or test.py on an option file, changed by `overrides`."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    changes = [word for override in overrides for word in ("--set", override)]
    return [sys.executable, *launcher, str(ROOT / name), "-opt", options, *changes]


def run_program(command: Sequence[str], what: str) -> None:
    """Run a command to its end.

    SIGTERM is passed on to it, and SIGINT where no terminal has sent it to both; it saves and stops by itself.

    Raises:
        StoppedError: it, or this process, was asked to stop
        UserError: it failed; the sentence begins with `what`
    """
    asked: list[int] = []
    child: subprocess.Popen | None = None

    def pass_on(number: int, frame: object) -> None:
        asked.append(number)
        if child and not (number == signal.SIGINT and _in_foreground()):
            child.send_signal(number)

    before = {s: signal.signal(s, pass_on) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        child = subprocess.Popen(command)
        for number in asked:  # while it was started
            child.send_signal(number)
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    code = 128 + max(asked) if asked else code if code >= 0 else 128 - code
    if code in STOPPED:
        raise StoppedError(f"{what} was stopped before its end; the same command goes on from there", code)
    if code:
        raise UserError(f"{what} ended with exit code {code}; the same command goes on from there")


def _in_foreground() -> bool:
    """Whether a terminal sends its Ctrl-C to this process and its children."""
    try:
        with open("/dev/tty") as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:  # there is none
        return False
