"""The C library's memory of this process: what is freed can be kept for the next use, and be there for all threads."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8
_LARGEST: Final = 32 << 20
"""Bytes; the largest threshold that mallopt(3) takes."""
_FREED: Final = 64 << 20
_USUAL: Final = 128 << 10


def shared() -> None:
    """All threads take their memory from one heap, in a process that has had none but its first thread until now.

    Large pieces go from thread to thread here, and in heaps of their own each would leave its holes: a third more
    memory, in no less time. For the whole process; a C library that cannot do it goes on as before.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, 1)


@contextmanager
def kept() -> Iterator[None]:
    """Meanwhile, keep up to 64 MiB that were freed of each heap rather than give them back to the kernel.

    Whoever makes and drops one large piece after another pays a page fault for every page of each otherwise. For the
    whole process; at the end everything that is free is given back. A C library that cannot do it goes on as before.
    """
    library = ctypes.CDLL(None)
    mallopt, trim = getattr(library, "mallopt", None), getattr(library, "malloc_trim", None)
    if mallopt is None or trim is None:
        yield
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST)
    mallopt(_TRIM_THRESHOLD, _FREED)
    try:
        yield
    finally:
        mallopt(_MMAP_THRESHOLD, _USUAL)
        mallopt(_TRIM_THRESHOLD, _USUAL)
        trim(0)
