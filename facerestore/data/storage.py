"""Where pictures lie.  A storage lists names and reads bytes; `Pictures` decodes what one of them holds.

A picture's name is its path below the root without the ending (`00012`, `session_1/left`), so that a JPEG and its PNG
counterpart in another folder are a pair.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from facerestore.data import lmdb_storage
from facerestore.data.drawn import Drawn
from facerestore.data.image_io import PictureError, decode_image, picture_size
from facerestore.data.names import by_name, is_picture, without_extension
from facerestore.data.watchdog import watchdog
from facerestore.errors import DataError, OptionError, listed

# {type: disk}, {type: lmdb}, or drawn faces: {type: synthetic, count: 240, size: 128, start: 0, seed: 0}
IOBackend = dict[Literal["type", "count", "size", "start", "seed"], Literal["disk", "lmdb", "synthetic"] | int]


class Storage(Protocol):
    """What a place for pictures offers.  Nothing is touched before the first call."""

    def names(self) -> list[str]:
        """All names, in natural order; DataError where there are none."""

    def read(self, name: str) -> bytes:
        """The file's bytes; PictureError where they cannot be had."""

    def size(self, name: str) -> int:
        """How many bytes the file has; PictureError as for `read`."""

    def changed(self, name: str) -> int:
        """When the file that holds it was last changed, in ns; 0 where there is none.  PictureError as for `read`."""

    def path(self, name: str) -> str:
        """What reports and errors call it."""


class Folder:
    """The picture files below a folder, links followed, hidden files left out.

    Args:
        root: the folder
        key: the option that named it, for errors
    """

    def __init__(self, root: str, key: str):
        self.root, self.key = root, key

    @cached_property
    def files(self) -> dict[str, str]:
        """Path below the root by name, in natural order."""
        if not os.path.isdir(self.root):
            found = "is not a folder" if os.path.exists(self.root) else "does not exist"
            hint = ", and say `io_backend: {type: lmdb}`" if self.root.rstrip("/").endswith(".lmdb") else ""
            raise DataError(f"folder {self.root}, named by `{self.key}`, {found}: correct the path (from {os.getcwd()}){hint}")
        where = f"folder {self.root}, named by `{self.key}`,"
        if os.path.exists(os.path.join(self.root, lmdb_storage.DATA)):
            raise DataError(f"{where} is an LMDB: say `io_backend: {{type: lmdb}}`")
        return by_name(walk(self.root), where)

    def names(self) -> list[str]:
        return list(self.files)

    def read(self, name: str) -> bytes:
        try:
            return Path(self.path(name)).read_bytes()
        except OSError as error:
            raise PictureError(f"picture {self.path(name)} cannot be read: {error.strerror or error}") from None

    def size(self, name: str) -> int:
        return self._stat(name).st_size

    def changed(self, name: str) -> int:
        return self._stat(name).st_mtime_ns

    def _stat(self, name: str) -> os.stat_result:
        try:
            return os.stat(self.path(name))
        except OSError as error:
            raise PictureError(f"picture {self.path(name)} cannot be read: {error.strerror or error}") from None

    def path(self, name: str) -> str:
        return os.path.join(self.root, self.files[name])


BACKENDS: dict[str, Callable[..., Storage]] = {"disk": Folder, "lmdb": lmdb_storage.Lmdb, "synthetic": Drawn}


class Pictures:
    """The pictures of one storage, by name; all of them, or those that a list names, in its order.

    Args:
        root: the folder, or the LMDB
        key: the option that named it, for errors
        io_backend: what kind of storage it is
        meta_info_file: text file; each line, or its first word, names a picture, with its ending or without
    """

    def __init__(self, root: str, key: str, io_backend: IOBackend | None = None, meta_info_file: str | None = None):
        self.root, self.key, self.meta_info_file = root, key, meta_info_file
        numbers = {"type": "disk", **(io_backend or {})}
        kind = numbers.pop("type")
        if not isinstance(kind, str) or (numbers and kind != "synthetic"):
            raise OptionError(f"`io_backend` of type {kind} has no {listed(list(numbers))}", ("io_backend",))
        self.storage: Storage = BACKENDS[kind](root, key, **numbers)
        self._last: tuple[str, np.ndarray] | None = None

    @cached_property
    def names(self) -> list[str]:
        names = self.storage.names()
        return names if self.meta_info_file is None else _selected(names, self.meta_info_file, self.root)

    def read(self, name: str) -> np.ndarray:
        """uint8 (H, W, 3), RGB, read-only.  The last one is kept: several crops of one picture decode it once."""
        if self._last is None or self._last[0] != name:
            with watchdog.watching(path := self.path(name)):
                image = decode_image(self.storage.read(name), path)
            image.flags.writeable = False
            self._last = name, image
        return self._last[1]

    def header(self, name: str) -> tuple[int, int]:
        """Height and width, without decoding the picture."""
        return picture_size(self.storage.read(name), self.path(name))

    def path(self, name: str) -> str:
        return self.storage.path(name)


def walk(root: str) -> Iterator[str]:
    """Paths below `root` of all picture files; a folder that links lead to twice is walked once."""
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, onerror=_refuse, followlinks=True):
        real = os.path.realpath(folder)
        folders[:] = [] if real in seen else sorted(f for f in folders if not f.startswith("."))
        if real in seen:
            continue
        seen.add(real)
        for file in files:
            if is_picture(file):
                yield Path(folder, file).relative_to(root).as_posix()


def _refuse(error: OSError) -> None:
    """os.walk passes over folders that it may not list, and their pictures would be missing in silence."""
    raise DataError(f"folder {error.filename} cannot be read: {error.strerror or error}")


def _selected(names: list[str], meta_info_file: str, root: str) -> list[str]:
    """The names that a text file lists."""
    try:
        lines = Path(meta_info_file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the list {meta_info_file}, named by `meta_info_file`, cannot be read: {error}") from None
    known, selected, missing = set(names), {}, []
    for line in filter(None, map(str.strip, lines)):
        words = (line, line.split()[0])  # the whole line first: a name may hold spaces
        name = next((n for word in words for n in (word, without_extension(word)) if n in known), None)
        if name is None:
            missing.append(words[1])
        else:
            selected[name] = True
    if missing or not selected:
        what = f"names pictures that {root} does not hold: {listed(missing, 5)}" if missing else "names no picture"
        raise DataError(f"the list {meta_info_file}, named by `meta_info_file`, {what}")
    return list(selected)
