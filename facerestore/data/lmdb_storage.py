"""Pictures in an LMDB of BasicSR's layout: many in one file, so that a slow disk is not asked for each one's folder entry.

NAME.lmdb is a folder with `data.mdb` (keys: names without ending; values: picture files), `lock.mdb`, and `meta_info.txt`:
a line `key.png (height,width,channels) compression` for each picture.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import lmdb

from facerestore.data.image_io import PictureError
from facerestore.data.lmdb_file import DamagedError, Place, read_index
from facerestore.data.names import natural, without_extension
from facerestore.errors import DataError, UserError, listed
from facerestore.files import atomic_write, hold

DATA, LOCK, LIST = "data.mdb", "lock.mdb", "meta_info.txt"
PROGRESS = "meta_info.txt.part"  # the list as long as pictures are missing
LINE = re.compile(r"(.+)\.png \(\d+,\d+,\d+\) \d+")
LONGEST = 511  # bytes of a key, as liblmdb is built
BATCH, BATCH_BYTES = 200, 64 << 20  # what is written at once: pictures, and their bytes


class Index(NamedTuple):
    """Where the pictures lie in a data file, and which file that was."""

    places: dict[str, Place]
    version: tuple[int, int]


class Lmdb:
    """The pictures of an LMDB.

    Nothing stays open: each read opens the data file.  So it may be pickled, forked and shared by threads.

    Args:
        root: the folder NAME.lmdb
        key: the option that named it, for errors
    """

    def __init__(self, root: str, key: str):
        self.root, self.key = root, key

    @cached_property
    def index(self) -> Index:
        where = f"LMDB {self.root}, named by `{self.key}`,"
        if not os.path.isdir(self.root):
            found = "is not a folder" if os.path.exists(self.root) else "does not exist"
            raise DataError(f"{where} {found}: correct the path (from {os.getcwd()})")
        if not os.path.exists(self._file(DATA)):
            raise DataError(
                f"{where} holds no {DATA}: make one with scripts/create_lmdb.py, or, if it is a folder of pictures, say "
                "`io_backend: {type: disk}`"
            )
        if os.path.exists(self._file(PROGRESS)) and not os.path.exists(self._file(LIST)):
            raise DataError(f"{where} is not complete: start the script that makes it again, and it goes on")
        try:
            version = _version(os.stat(self._file(DATA)))
            return Index({_decoded(name): place for name, place in read_index(self._file(DATA)).items()}, version)
        except DamagedError as damage:
            raise DataError(f"{where} cannot be used: {DATA} {damage}; make or copy it again") from None
        except OSError as error:
            raise DataError(f"{where} cannot be read: {error.strerror or error}") from None

    def names(self) -> list[str]:
        held = self.index.places
        names = self._listed(default=list(held))
        if missing := [name for name in names if name not in held]:
            raise DataError(
                f"{self._file(LIST)} names {len(missing)} pictures that its {DATA} does not hold "
                f"({listed(missing, 5)}): make or copy the LMDB again"
            )
        if not names:
            raise DataError(f"LMDB {self.root}, named by `{self.key}`, holds no picture")
        return sorted(names, key=natural)

    def _listed(self, default: list[str]) -> list[str]:
        """The names in meta_info.txt; `default` where there is none."""
        try:
            text = Path(self._file(LIST)).read_text(encoding="utf-8", errors="surrogateescape")
        except FileNotFoundError:
            return default
        except OSError as error:
            raise DataError(f"{self._file(LIST)} cannot be read: {error.strerror or error}") from None
        return list(dict.fromkeys(name for name, _ in _lines(text)))

    def read(self, name: str) -> bytes:
        offset, size = self.index.places[name]
        try:
            with open(self._file(DATA), "rb", buffering=0) as file:
                if _version(os.fstat(file.fileno())) != self.index.version:
                    raise DataError(f"{self._file(DATA)} has changed since it was opened: start again")
                data = os.pread(file.fileno(), size, offset)
        except OSError as error:
            raise PictureError(f"picture {self.path(name)} cannot be read: {error.strerror or error}") from None
        if len(data) < size:
            raise PictureError(f"picture {self.path(name)} cannot be read: its LMDB is truncated")
        return data

    def size(self, name: str) -> int:
        return self.index.places[name].size

    def changed(self, name: str) -> int:
        return self.index.version[1]

    def path(self, name: str) -> str:
        return os.path.join(self.root, name)

    def _file(self, name: str) -> str:
        return os.path.join(self.root, name)


class LmdbWriter:
    """Fills an LMDB, and goes on where an earlier one stopped, however it did.

    A context; pictures are in the file batch by batch, and `meta_info.txt` appears with `finish`, so that a file that is
    not complete is not taken for one that is.

    Args:
        root: the folder NAME.lmdb
        map_size: bytes that the file may grow to at first; doubled as often as need be
    """

    def __init__(self, root: str | os.PathLike, map_size: int = 1 << 30):
        self.root, self.map_size = Path(root), map_size
        self.done: dict[str, str] = {}  # lines of meta_info.txt, by name
        self._batch: list[tuple[bytes, bytes, str, str]] = []  # key, value, name, line

    def __enter__(self) -> LmdbWriter:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._progress = open(self.root / PROGRESS, "a+", encoding="utf-8", errors="surrogateescape")
            hold(self._progress, self.root)
            self.done = self._earlier()
            self._lmdb = lmdb.open(str(self.root), map_size=self.map_size)
        except (OSError, lmdb.Error) as error:
            raise UserError(f"{self.root}: cannot be written: {error}") from None
        return self

    def put(self, name: str, data: bytes, shape: tuple[int, int, int], compression: int) -> None:
        """Add a picture file of `shape` (height, width, channels)."""
        key = _encoded(name)
        if not 0 < len(key) <= LONGEST or "\n" in name:
            raise DataError(f"picture {name!r} cannot be a key of an LMDB (1 to {LONGEST} bytes, one line): rename it")
        line = f"{name}.png ({','.join(map(str, shape))}) {compression}\n"
        self._batch.append((key, data, name, line))
        if len(self._batch) >= BATCH or sum(len(value) for _, value, *_ in self._batch) >= BATCH_BYTES:
            self._flush()

    def finish(self) -> None:
        """All pictures are there: write meta_info.txt."""
        self._flush()
        text = "".join(self.done[name] for name in sorted(self.done, key=natural))
        atomic_write(self.root / LIST, text.encode(errors="surrogateescape"))
        os.unlink(self.root / PROGRESS)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._flush()
        finally:
            self._lmdb.close()
            self._progress.close()

    def _flush(self) -> None:
        """Write the batch; then note that it is written."""
        batch, self._batch = self._batch, []
        if not batch:
            return
        try:
            (self.root / LIST).unlink(missing_ok=True)  # no longer complete
            while not self._written(batch):
                self.map_size *= 2
                self._lmdb.set_mapsize(self.map_size)
            self._progress.writelines(line for *_, line in batch)
            self._progress.flush()
        except (OSError, lmdb.Error) as error:
            raise UserError(f"{self.root}: cannot be written: {error}; make room, and start again to go on") from None
        self.done.update((name, line) for *_, name, line in batch)

    def _written(self, batch: list[tuple[bytes, bytes, str, str]]) -> bool:
        """Whether the batch went in; False where it needs a larger map."""
        try:
            with self._lmdb.begin(write=True) as transaction:
                for key, value, *_ in batch:
                    transaction.put(key, value)
        except lmdb.MapFullError:
            return False
        return True

    def _earlier(self) -> dict[str, str]:
        """The lines of the pictures that are there."""
        self._progress.seek(0)
        text = self._progress.read()
        if (self.root / LIST).exists():  # it was complete
            text = (self.root / LIST).read_text(encoding="utf-8", errors="surrogateescape")
            self._progress.truncate(0)
            self._progress.write(text)
        elif text and not text.endswith("\n"):  # cut off
            self._progress.write("\n")
        self._progress.flush()
        data = self.root / DATA
        try:
            held = read_index(data) if data.exists() and data.stat().st_size else {}
        except DamagedError as damage:
            raise DataError(f"{data} {damage}: remove {self.root}, and start again") from None
        lines = ((name, line) for name, line in _lines(text) if LINE.fullmatch(line))
        return {name: f"{line}\n" for name, line in lines if _encoded(name) in held}


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """Name and line of each picture in a meta_info.txt; also of lists that hold only names."""
    for line in filter(None, map(str.rstrip, text.split("\n"))):
        match = LINE.fullmatch(line)
        yield match[1] if match else without_extension(line.split()[0]), line


def _encoded(name: str) -> bytes:
    return name.encode(errors="surrogateescape")


def _decoded(key: bytes) -> str:
    return key.decode(errors="surrogateescape")


def _version(file: os.stat_result) -> tuple[int, int]:
    return file.st_size, file.st_mtime_ns


def unreadable_upstream(names: Iterable[str]) -> list[str]:
    """Those that BasicSR cannot read: it cuts keys at their first dot, and knows ASCII alone."""
    return [name for name in names if "." in name or not name.isascii()]
