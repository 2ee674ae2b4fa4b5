"""What pictures are called: paths without ending, in an order that people expect."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from facerestore.errors import DataError, listed

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})


def without_extension(name: str) -> str:
    """`a/b.v2.png` to `a/b.v2`; only endings of pictures are cut."""
    stem, extension = os.path.splitext(name)
    return stem if extension.lower() in EXTENSIONS else name


def natural(name: str) -> tuple[list[str | int], str]:
    """Sort key by which `img2` comes before `img10`."""
    parts: list[str | int] = list(re.split(r"([0-9]+)", name.lower()))
    parts[1::2] = map(int, parts[1::2])
    return parts, name


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
        DataError: there are none, or two of one name
    """
    named: dict[str, str] = {}
    for file in sorted(files, key=natural):
        name = without_extension(file)
        if name in named:
            raise DataError(f"{where} holds two pictures called {name!r} ({named[name]}, {file}): remove or rename one")
        named[name] = file
    if not named:
        raise DataError(f"{where} holds no picture (files that end with {listed(sorted(EXTENSIONS))})")
    return named
