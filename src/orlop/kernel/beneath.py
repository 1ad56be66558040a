"""What lies beneath an open folder, opened without leaving it: no symbolic link is followed, whoever swaps one in."""

import ctypes
import errno
import os
import struct
from typing import Final

_OPENAT2: Final = 437
_NO_SYMLINKS, _BENEATH = 0x04, 0x08
_HOW: Final = struct.Struct("=QQQ")
_long: Final = ctypes.c_long
# Declared once: this is called for every folder of a volume, and to say the types anew costs as much as the call.
_openat2 = ctypes.CFUNCTYPE(_long, _long, _long, ctypes.c_char_p, ctypes.c_char_p, _long, use_errno=True)(
    ("syscall", ctypes.CDLL(None))
)
_PART_BY_PART: Final = (errno.ENOSYS, errno.EPERM, errno.ENAMETOOLONG)
"""Kernels before 5.6, filters of system calls that do not know it, and paths that are too long for one call."""


def opened(root: int, path: bytes, flags: int) -> int:
    """A descriptor of ``path`` (parts between slashes, none of them ``..``; b"" for the root itself); yours to close.

    ``flags`` (open(2)) have O_NOFOLLOW. Raises `OSError` as open(2) does (openat2(2)).
    """
    if not path:
        return os.open(b".", flags, dir_fd=root)
    fd: int = _openat2(_OPENAT2, root, path, _HOW.pack(flags, 0, _NO_SYMLINKS | _BENEATH), _HOW.size)
    if fd >= 0:
        return fd
    error = ctypes.get_errno()
    if error in _PART_BY_PART:
        return part_by_part(root, path, flags)
    raise OSError(error, os.strerror(error), os.fsdecode(path))


def part_by_part(root: int, path: bytes, flags: int) -> int:
    """The same, however long the path is, on every kernel."""
    here = os.open(b".", flags, dir_fd=root)
    for part in path.split(b"/"):
        above = here
        try:
            here = os.open(part, flags, dir_fd=above)
        finally:
            os.close(above)
    return here
