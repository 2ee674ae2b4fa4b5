"""What is stored about pictures in one file, by their names: boxes of face parts, precomputed codes.

Upstream wrote such files with torch.save from numpy's arrays and numbers, which today's torch.load refuses.  Here they are
read without running any code: numpy's constructors of arrays are allowed, and nothing else.
"""

from __future__ import annotations

import logging
import posixpath
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np
import torch

from facerestore.data.storage import without_extension
from facerestore.errors import DataError, listed

log = logging.getLogger("facerestore")

T = TypeVar("T", bound="Table")
OnMissing = Literal["stop", "skip"]


@dataclass(frozen=True, eq=False)
class Table:
    """Entries of a file by name.

    Attributes:
        source: the file and the option that named it, for errors
        rows: which row of the stored arrays belongs to a name
    """

    source: str
    rows: Mapping[str, int]

    @property
    def names(self) -> list[str]:
        return list(self.rows)

    def row(self, name: str) -> int:
        """The row of a name; DataError where there is none."""
        if name not in self.rows:
            raise DataError(f"{self.source}, has no entry for picture {name!r}")
        return self.rows[name]

    def select(self: T, pictures: Sequence[str], missing: OnMissing = "stop") -> T:
        """The same table by the names of a data set's pictures, in their order; see :func:`match_names`.

        Args:
            pictures: names as `FaceDataset.name` gives them
            missing: what happens where pictures have no entry: an error that names them, or they are left out (the log
                says how many; an error where none is left)

        Raises:
            DataError: pictures without an entry
        """
        found = match_names(self.rows, pictures)
        lacking = [name for name in pictures if name not in found]
        if lacking and (missing == "stop" or not found):
            raise DataError(
                f"{self.source}, has no entry for {len(lacking)} of the {len(pictures)} pictures: {listed(lacking, 5)} "
                f"(it holds {listed(self.names, 3) or 'nothing'}): add them, leave the pictures out, or name the right file"
            )
        if lacking:
            log.warning("%s, has no entry for %d of the %d pictures (left out)", self.source, len(lacking), len(pictures))
        return replace(self, rows={name: self.rows[found[name]] for name in pictures if name in found})


def match_names(entries: Iterable[str], pictures: Iterable[str]) -> dict[str, str]:
    """Each picture's entry, by picture; pictures without one are left out.

    Names agree as they are, or without an ending (also without what upstream left of `.jpeg`: the dot), or as numbers
    (`00012` and `12`), and at last without their folders.  A rougher agreement counts only where it is unique: of the
    pictures `a/1` and `b/1`, neither is `1`.
    """
    entries, pictures, found = list(entries), list(dict.fromkeys(pictures)), {}
    for form in (str, _plain, _number, _last_part):  # each rougher than the one before
        by_form = _unique(entries, form)
        asked = _unique(pictures, form)
        found |= {picture: by_form[key] for key, picture in asked.items() if key in by_form and picture not in found}
    return found


def _unique(names: Sequence[str], form: Callable[[str], str]) -> dict[str, str]:
    """Names by their form, without the forms that several have."""
    counts = Counter(map(form, names))
    return {form(name): name for name in names if counts[form(name)] == 1}


def _plain(name: str) -> str:
    return without_extension(name).rstrip(".")


def _number(name: str) -> str:
    folder, last = posixpath.split(_plain(name))
    return posixpath.join(folder, last.lstrip("0") or "0") if last.isdecimal() else _plain(name)


def _last_part(name: str) -> str:
    return posixpath.basename(_number(name))


def read_torch(path: str, source: str) -> Any:
    """The content of a file of torch.save: tensors (mapped into memory, so that loader workers share them), numpy's arrays
    and numbers, and plain containers of them.  No code of the file is run.

    The file is read once against its checksums, which torch itself does not look at: labels with flipped bits would train
    a network as well as others.  (Files of torch before 1.6, and of `set_crc32_options(False)`, have none.)

    Args:
        path: the file
        source: what errors call it

    Raises:
        DataError: it is missing, cut off, damaged, or holds anything else
    """
    try:
        with open(path, "rb"):
            pass
    except (OSError, ValueError) as error:  # a path with a NUL is a ValueError
        raise DataError(f"{source}, cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        zipped = zipfile.is_zipfile(path)
        if zipped and (member := _damaged_member(path)):
            raise zipfile.BadZipFile(member)
        with torch.serialization.safe_globals(_numpy_constructors()):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # bytes that are no such file may raise anything at all
        foreign = "Unsupported" in str(error) and "weights_only" in str(error)
        reason = "it holds Python objects other than tables of numbers, which could run code"
        raise DataError(
            f"{source}, cannot be used: {reason if foreign else 'it is cut off, damaged, or no file of torch.save'}"
        ) from None


def _damaged_member(path: str) -> str | None:
    """The first part of a zip that does not agree with its checksum (72 MB: 0.04 s); None where all do, or none has one."""
    with zipfile.ZipFile(path) as archive:
        return archive.testzip() if any(member.CRC for member in archive.infolist()) else None


def shown(value: Any) -> str:
    """A wrong value for an error: its first 60 characters, on one line."""
    try:
        return " ".join(repr(value).split())[:60]
    except RuntimeError:  # lists in lists without end; a tensor that cannot show itself
        return f"a {type(value).__name__}"


def _numpy_constructors() -> list[Any]:
    """What a pickle of arrays and numbers names: numpy 2 and numpy 1 keep it in different places."""
    types = {type(np.dtype(code)) for code in "?bBhHiIqQlLefd"}  # truth values, whole numbers, floats
    rebuild = np.empty(0).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    places = ("numpy._core.multiarray", "numpy.core.multiarray")
    moved = [(f, f"{place}.{f.__name__}") for f in (rebuild, scalar) for place in places]
    return [np.ndarray, np.dtype, *types, *moved]
