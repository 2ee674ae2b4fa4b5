"""Errors that a user caused and can mend.

Each is one sentence: what is wrong, where, what to do.  The command line prints it and ends with exit code 2; from Python
they are ordinary exceptions.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

Path = tuple[str | int, ...]  # where an option stands, from the top of the file: ("train", "optim_g", "lr")


class UserError(Exception):
    """The base of all of them."""

    exit_code = 2


class OptionError(UserError):
    """An option is unknown, missing or wrong.  `path` is where it stands in the options."""

    def __init__(self, message: str, path: Path = ()):
        super().__init__(message)
        self.message, self.path = message, path

    def within(self, prefix: Path) -> OptionError:
        """The same error, seen from `len(prefix)` levels further up."""
        return OptionError(self.message, prefix + self.path)


class DataError(UserError):
    """A data set, folder or picture cannot be used."""


class CheckpointError(UserError):
    """A file of weights or of a training state cannot be used.  `path` is the option that names it, where one is known."""

    def __init__(self, message: str, path: Path = ()):
        super().__init__(f"{dotted(path)}: {message}" if path else message)
        self.message, self.path = message, path

    def within(self, prefix: Path) -> CheckpointError:
        """The same error, seen from `len(prefix)` levels further up."""
        return CheckpointError(self.message, prefix + self.path)


def nearest(word: str, known: Iterable[str]) -> str:
    """' (did you mean "x"?)' for the known name that is nearest to `word`, or ''."""
    match = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.6)
    return f" (did you mean {match[0]!r}?)" if match else ""


def listed(names: Sequence[str], limit: int = 12) -> str:
    """'a, b, c and 5 more'."""
    names = list(names)
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def dotted(path: Path) -> str:
    """'train.optim_g.betas[1]'."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else str(key)
    return text
