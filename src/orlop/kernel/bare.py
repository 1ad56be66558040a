"""The folders on which volumes are mounted: bare and immutable, so that no data goes into one by mistake."""

import contextlib
import fcntl
import os
import struct
from pathlib import Path

from orlop.kernel import syscalls as sc

_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS, _IMMUTABLE = 0x80086601, 0x40086602, 0x10


def is_mount_point(target: Path) -> bool:
    """Whether something is mounted at ``target``, dead or alive."""
    try:
        return sc.mount_at(target) is not None
    except FileNotFoundError:
        return False
    except OSError:  # dead, but there
        return True


def make(target: Path) -> None:
    """An empty folder to mount on, immutable where the filesystem can: nothing may be written below an absent mount."""
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not is_mount_point(target):
        _set_immutable(target, True)


def remove(target: Path) -> None:
    """Take the folder away; none is fine."""
    with contextlib.suppress(FileNotFoundError):
        _set_immutable(target, False)
        target.rmdir()


def _set_immutable(folder: Path, on: bool) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with sc.closing(fd), contextlib.suppress(OSError):
        (flags,) = struct.unpack("l", fcntl.ioctl(fd, _FS_IOC_GETFLAGS, bytes(8)))
        wanted = flags | _IMMUTABLE if on else flags & ~_IMMUTABLE
        if wanted != flags:
            fcntl.ioctl(fd, _FS_IOC_SETFLAGS, struct.pack("l", wanted))
