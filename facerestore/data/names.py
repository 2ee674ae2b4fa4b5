"""What pictures are called: paths without ending, in an order that people expect."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable

from facerestore.errors import DataError, listed

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})


def without_extension(name: str) -> str:
    """`a/b.v2.png` to `a/b.v2`; only endings of pictures are cut."""
    stem, extension = os.path.splitext(name)
    return stem if extension.lower() in EXTENSIONS else name


def natural(name: str) -> tuple[list[str | tuple[int, str]], str]:
    """Sort key by which `img2` comes before `img10`."""
    parts: list[str | tuple[int, str]] = list(re.split(r"([0-9]+)", name.lower()))
    parts[1::2] = map(_magnitude, parts[1::2])
    return parts, name


def _magnitude(digits: str) -> tuple[int, str]:
    """Orders as the number does; Python makes no int of more than 4300 digits."""
    digits = digits.lstrip("0")
    return len(digits), digits


def leads_out(path: str) -> bool:
    """Whether a path with / between its parts, as an archive may hold it, could lead out of the folder that it is put in."""
    return path.startswith("/") or ".." in path.split("/")


def is_picture(file: str) -> bool:
    """Whether a path's last part is called like a picture: with such an ending, and not hidden."""
    last = os.path.basename(file)
    return not last.startswith(".") and os.path.splitext(last)[1].lower() in EXTENSIONS


def by_name(files: Iterable[str], where: str) -> dict[str, str]:
    """Picture files by name, in natural order.

    Args:
        files: paths, with / between their parts
        where: what holds them, for errors

    Raises:
        DataError: there are none, two of one name, or one that would lie outside of the folder that it is unpacked in
    """
    named: dict[str, str] = {}
    for file in sorted(files, key=natural):
        if leads_out(file):
            raise DataError(
                f"{where} holds {file!r:.200}, which leads out of it: name its pictures without `..` and a leading `/`"
            )
        name = without_extension(posixpath.normpath(file))  # `tar -C FOLDER -c .` writes ./a.png
        if name in named:
            raise DataError(f"{where} holds two pictures called {name!r} ({named[name]}, {file}): remove or rename one")
        named[name] = file
    if not named:
        raise DataError(f"{where} holds no picture (files that end with {listed(sorted(EXTENSIONS))})")
    return named
