"""Where the values of an LMDB data file lie, read from the file itself.

The format is LMDB's `data.mdb`, version 1 (liblmdb's mdb.c: MDB_meta, MDB_page, MDB_node): pages of one size; two meta pages,
the later of which names the root; branch pages, leaf pages, and runs of overflow pages for values that fill over half a page.

Why not liblmdb: it maps the file into memory.  A read error, a truncated or a damaged file then ends the process by a signal
(SIGBUS, abort), and an open environment may not be carried over a fork.  Plain reads raise errors that can name the
picture, from any process or thread, at the same speed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from struct import Struct, error
from typing import NamedTuple

MAGIC, VERSION = 0xBEEFC0DE, 1
HEADER = Struct("<QHHHH")  # of a page: number, padding, kind, end of the nodes' offsets, start of the nodes
META = Struct("<II16x")  # after its header: magic, version
TREE = Struct("<IHH4QQ")  # two after that: page size, flags, depth, pages of three kinds, entries, root
LAST = Struct("<QQ")  # then the last page's number, and the transaction's
NODE = Struct("<HHHH")  # size of the value or number of the page, in two or three parts; flags; size of the key
PAGE_NUMBER = Struct("<Q")
BRANCH, LEAF = 0x01, 0x02
OVERFLOW_VALUE = 0x01
EMPTY = 2**64 - 1
DEEPEST = 32  # levels that liblmdb itself descends


class DamagedError(Exception):
    """What is wrong with the file, as the end of a sentence that begins with its name."""


class Place(NamedTuple):
    """Where a value lies in the file, in bytes."""

    offset: int
    size: int


def read_index(path: str | os.PathLike) -> dict[bytes, Place]:
    """Every key of a data file and the place of its value, in the order of the keys.

    Raises:
        DamagedError: the file is empty, truncated, damaged, or no LMDB of this format
        OSError: it cannot be read
    """
    with open(path, "rb", buffering=0) as file:
        try:
            reader = _Reader(file.fileno())
            index = dict(reader.entries())
        except error:  # bytes are missing where a structure should be
            raise DamagedError("is damaged") from None
    if len(index) != reader.count:
        raise DamagedError("is damaged")
    return index


class _Reader:
    """The tree of an open data file."""

    def __init__(self, file: int):
        self.file, self.length = file, os.fstat(file).st_size
        if not self.length:
            raise DamagedError("is empty")
        self.page_size = self._meta(0)[0]
        if self.page_size & (self.page_size - 1) or not 256 <= self.page_size <= 65536:
            raise DamagedError("is damaged")
        metas = [self._meta(0), self._meta(self.page_size)]
        self.page_size, self.depth, self.count, self.root, self.last, _ = max(metas, key=lambda meta: meta[-1])
        if self.depth > DEEPEST:
            raise DamagedError("is damaged")
        if self.length < (self.last + 1) * self.page_size:
            raise DamagedError(f"is truncated: it has {self.length:,} bytes of {(self.last + 1) * self.page_size:,}")

    def _meta(self, offset: int) -> tuple[int, ...]:
        """Page size; the main tree's depth, number of entries and root; the last page; the transaction."""
        data = os.pread(self.file, HEADER.size + META.size + 2 * TREE.size + LAST.size, offset)
        magic, version = META.unpack_from(data, HEADER.size)
        if magic != MAGIC:
            raise DamagedError("is no LMDB of a 64-bit, little-endian machine")
        if version != VERSION:
            raise DamagedError(f"has LMDB's format {version}, not {VERSION}")
        free = HEADER.size + META.size
        page_size = TREE.unpack_from(data, free)[0]
        _, flags, depth, *_, count, root = TREE.unpack_from(data, free + TREE.size)
        if flags:
            raise DamagedError("holds a table of another kind than names and pictures")
        return page_size, depth, count, root, *LAST.unpack_from(data, free + 2 * TREE.size)

    def entries(self) -> Iterator[tuple[bytes, Place]]:
        if self.root != EMPTY:
            yield from self._below(self.root, self.depth)

    def _below(self, number: int, depth: int) -> Iterator[tuple[bytes, Place]]:
        """The entries below a page, which stands `depth` levels over the values."""
        start = number * self.page_size
        page = os.pread(self.file, self.page_size, start) if 2 <= number <= self.last else b""
        found, _, kind, end, _ = HEADER.unpack_from(page)
        if found != number or not kind & (LEAF if depth == 1 else BRANCH) or depth < 1 or end > len(page):
            raise DamagedError("is damaged")
        for (at,) in Struct("<H").iter_unpack(page[HEADER.size : end]):
            low, high, flags, key_size = NODE.unpack_from(page, at)
            value = at + NODE.size + key_size
            if depth > 1:
                yield from self._below(low | high << 16 | flags << 32, depth - 1)
            else:
                yield page[at + NODE.size : value], self._place(page, start, value, low | high << 16, flags)

    def _place(self, page: bytes, start: int, value: int, size: int, flags: int) -> Place:
        if flags == OVERFLOW_VALUE:
            place = Place(PAGE_NUMBER.unpack_from(page, value)[0] * self.page_size + HEADER.size, size)
        elif flags:
            raise DamagedError("holds tables in a table, not names and pictures")
        else:
            place = Place(start + value, size)
            if value + size > len(page):
                raise DamagedError("is damaged")
        if place.offset + place.size > self.length:
            raise DamagedError("is damaged")
        return place
