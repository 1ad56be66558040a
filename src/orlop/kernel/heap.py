"""The C library's memory of this process: what is freed can be kept for the next use."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_LARGEST: Final = 32 << 20
"""Bytes; the largest threshold that mallopt(3) takes."""
_FREED: Final = 64 << 20
_USUAL: Final = 128 << 10


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
