"""What the scripts' command lines share."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

from facerestore.errors import UserError


class Parser(argparse.ArgumentParser):
    """One sentence instead of the usage."""

    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """The type of an argument that is a whole number from `low`, to `high` where it is given."""

    def number(text: str) -> int:
        if not text.lstrip("-").isdigit() or int(text) < low or (high is not None and int(text) > high):
            limits = f"from {low}" + (f" to {high}" if high is not None else "")
            raise argparse.ArgumentTypeError(f"must be a whole number {limits}, not {text!r}")
        return int(text)

    return number


def add_conversion_arguments(parser: Parser) -> None:
    """How pictures are encoded, and by how many processes."""
    parser.add_argument("--quality", type=whole(1, 100), default=95, help="of jpg and webp, 1 to 100 (default: 95)")
    parser.add_argument(
        "--compression", type=whole(0, 9), default=1, help="of png, 0 to 9, slow and small (default: 1, as BasicSR)"
    )
    parser.add_argument(
        "--filter",
        choices=("area", "bicubic", "lanczos"),
        default="area",
        help="how pictures are shrunk: area, the mean of what a pixel covers, leaves no halos at edges (default); "
        "bicubic or lanczos, crisper, as others did",
    )
    parser.add_argument("--workers", type=whole(1), default=os.cpu_count() or 1, help="processes (default: one a core)")
    parser.add_argument("--skip-bad", action="store_true", help="name and leave out pictures that cannot be used")


def run(name: str, work: Callable[[], Any], interrupted: str = "interrupted; the same command goes on from here") -> int:
    """Do the work; the exit code: 2 and a sentence for what the user can mend, 130 where it was interrupted.

    An error that has an exit code of its own ends with that.
    """
    try:
        work()
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{name}: {interrupted}", file=sys.stderr)
        return 130
    return 0
