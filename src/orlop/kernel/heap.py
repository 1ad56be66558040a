"""The C library's memory of this process: what is freed can be kept for the next use."""

import ctypes
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_LARGEST: Final = 32 << 20
"""Bytes; the largest threshold that mallopt(3) takes."""


def keep(freed: int) -> None:
    """From now on, keep up to so many freed bytes at the top of each heap rather than give them back to the kernel.

    Whoever makes and drops one large piece after another pays a page fault for every page of each otherwise. For the
    whole process, so for one that does nothing else. A C library that cannot do it goes on as before.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST)
        mallopt(_TRIM_THRESHOLD, freed)
