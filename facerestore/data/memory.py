"""What a process does with memory that it has freed."""

from __future__ import annotations

import ctypes
from contextlib import suppress

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
MEBIBYTE = 1 << 20


def keep_freed_memory() -> None:
    """Let this process keep the memory of freed pictures for the next ones.

    By default glibc hands back what is larger than some hundred kilobytes and asks for it again a moment later, and the kernel
    clears every page of it: half of the time that a degradation takes.  Other C libraries are left as they are.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 32 * MEBIBYTE)  # the most that glibc allows
        libc.mallopt(M_TRIM_THRESHOLD, 256 * MEBIBYTE)
