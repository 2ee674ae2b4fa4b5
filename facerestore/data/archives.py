"""Pictures in a .zip or .tar file, as data sets are published: storages to convert from (see `storage.Storage`)."""

from __future__ import annotations

import os
import tarfile
import zipfile
import zlib
from functools import cached_property, lru_cache

from facerestore.data.image_io import PictureError
from facerestore.data.lmdb_file import Place
from facerestore.data.names import by_name, is_picture
from facerestore.errors import DataError


class Zip:
    """The pictures of a .zip file."""

    def __init__(self, root: str, key: str):
        self.root, self.key = root, key

    @cached_property
    def files(self) -> dict[str, str]:
        where = f"archive {self.root}, given as {self.key},"
        try:
            with zipfile.ZipFile(self.root) as archive:
                return by_name(filter(is_picture, archive.namelist()), where)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{where} cannot be read ({_reason(error)}): is it whole, and a .zip?") from None

    def names(self) -> list[str]:
        return list(self.files)

    def read(self, name: str) -> bytes:
        try:
            return _opened(self.root, os.getpid()).read(self.files[name])
        except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise PictureError(f"picture {self.path(name)} cannot be read: {_reason(error)}") from None

    def size(self, name: str) -> int:
        return _opened(self.root, os.getpid()).getinfo(self.files[name]).file_size

    def path(self, name: str) -> str:
        return f"{self.root}/{self.files[name]}"


@lru_cache(maxsize=1)
def _opened(path: str, process: int) -> zipfile.ZipFile:
    """An open archive of this process: one that is carried over a fork shares its place in the file with the parent's."""
    return zipfile.ZipFile(path)


class Tar:
    """The pictures of a .tar file; a compressed one can only be read from front to end, and is refused."""

    def __init__(self, root: str, key: str):
        self.root, self.key = root, key

    @cached_property
    def members(self) -> dict[str, Place]:
        """Where each file's bytes lie."""
        where = f"archive {self.root}, given as {self.key},"
        try:
            with tarfile.open(self.root, "r:") as archive:
                return {m.name: Place(m.offset_data, m.size) for m in archive if m.isreg() and is_picture(m.name)}
        except (OSError, tarfile.TarError) as error:
            raise DataError(
                f"{where} cannot be read ({_reason(error)}): it must be whole and not compressed (unpack a .tar.gz first)"
            ) from None

    @cached_property
    def files(self) -> dict[str, str]:
        return by_name(self.members, f"archive {self.root}, given as {self.key},")

    def names(self) -> list[str]:
        return list(self.files)

    def read(self, name: str) -> bytes:
        offset, size = self.members[self.files[name]]
        try:
            with open(self.root, "rb", buffering=0) as file:
                data = os.pread(file.fileno(), size, offset)
        except OSError as error:
            raise PictureError(f"picture {self.path(name)} cannot be read: {_reason(error)}") from None
        if len(data) < size:
            raise PictureError(f"picture {self.path(name)} cannot be read: the archive is truncated")
        return data

    def size(self, name: str) -> int:
        return self.members[self.files[name]].size

    def path(self, name: str) -> str:
        return f"{self.root}/{self.files[name]}"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
