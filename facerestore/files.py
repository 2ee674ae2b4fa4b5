"""Files that are either the old one or the whole new one, whatever happens in between; and what tells one from another."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, BinaryIO

from facerestore.errors import UserError


def atomic_write(path: str | os.PathLike, write: bytes | str | Callable[[BinaryIO], None], durable: bool = True) -> None:
    """Fill a temporary file beside `path`, and move it into place; makes the folders on the way.

    Args:
        path: the file
        write: its content, or what writes it to an open binary file
        durable: whether it must outlast a power cut from here on (slow for many small files)

    Raises:
        UserError: it cannot be written (no space, no right to); the old file is as it was
    """
    path = Path(path)
    try:
        refuse_device(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from None
    try:
        with os.fdopen(handle, "wb") as file:
            if callable(write):
                write(file)
            else:
                file.write(write.encode() if isinstance(write, str) else write)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        if durable:
            _sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise UserError(f"{path}: cannot be written: {error.strerror or error}") from None
        raise


def refuse_device(path: Path) -> None:
    """UserError where a file would take the place of a device or a pipe, whose names other programs rely on."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(f"{path}: cannot be written: it is a device or a pipe; name a file")


def refuse_unwritable(path: str | os.PathLike) -> None:
    """UserError where no file can be written at `path`: said before the work whose result it is to hold.  Nothing is left."""
    path = Path(path)
    try:
        if path.is_dir():
            raise UserError(f"{path}: cannot be written: it is a folder; name a file")
        refuse_device(path)
        there = next(folder for folder in path.absolute().parents if folder.exists())
        with tempfile.TemporaryFile(dir=there, prefix=".", suffix=".part"):
            return
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from None


def hold(file: IO, path: str | os.PathLike) -> None:
    """Lock an open file for this process; UserError where another one holds it, and so is writing `path`."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise UserError(f"{path}: another process is writing it: wait until it is done") from None


def remove_unfinished(folder: str | os.PathLike) -> None:
    """Remove what writers that were killed have left in `folder`.  No other process may be writing there."""
    for path in Path(folder).glob(".*.part"):
        path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Have the folder's names outlast a power cut, as the files' contents do; some file systems cannot, and need not."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def digest(path: str | os.PathLike) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def _umask() -> int:
    """The process's mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
