"""Project quotas: how much a folder, with all below it, may take of the filesystem that it is on (XFS, ext4).

A folder is given the number of a project, which all that is made below it inherits; the filesystem counts blocks for
each number, and stops at the limit (quotactl(2), linux/fs.h, linux/dqblk_xfs.h). Where that is switched on, `df` of the
folder shows its limit. The kernel has each number once for a filesystem, whoever gives it to folders.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import struct
from pathlib import Path

from orlop.kernel import syscalls as sc

_GET_ATTRIBUTES, _SET_ATTRIBUTES, _INHERIT = 0x801C581F, 0x401C5820, 0x200
_ATTRIBUTES = struct.Struct("=5I8x")
"""``struct fsxattr``: flags, extent size, extents, project, extent size of what is cloned."""
_PROJECTS = 2
_GET, _SET = (command << 8 | _PROJECTS for command in (0x5803, 0x5804))  # Q_XGETQUOTA, Q_XSETQLIM
_QUOTA = struct.Struct("=bbHI6Q56x")
"""``struct fs_disk_quota``: version, kind, what is given, project; limits of blocks (of 512 bytes) and files: hard and
soft; blocks and files that there are; the rest, of times and warnings, is left alone."""
_VERSION, _IS_PROJECT, _HARD = 1, 2, 1 << 3
_BLOCK = 512
_OURS = range(1 << 30, 1 << 31)
"""Where numbers are drawn: others count up from 1."""


def limit(folder: Path, size: int) -> None:
    """Let ``folder``, empty or limited before, take at most ``size`` bytes; raises `OSError` if that cannot be."""
    with _opened(folder) as fd:
        project = _own(fd)
        if not project:
            project = _unused(fd)
            _assign(fd, project)
        _set(fd, project, size)
    told = os.statvfs(folder)
    if told.f_blocks * told.f_frsize > size:
        raise OSError(errno.ESRCH, "project quotas are counted there and not enforced", str(folder))


def limit_of(folder: Path) -> int:
    """The most bytes that a limited folder may take; 0 for one that nobody limits."""
    with _opened(folder) as fd:
        project = _own(fd)
        return _get(fd, project)[0] if project else 0


def used(folder: Path) -> int | None:
    """Bytes that a limited folder takes, as its filesystem has counted them; None if it does not count."""
    with contextlib.suppress(OSError), _opened(folder) as fd:
        project = _own(fd)
        return _get(fd, project)[1] if project else None
    return None


def forget(folder: Path) -> None:
    """Nobody limits the project of ``folder`` any more, which is about to be deleted; none is fine."""
    # There may be no such thing, or it was switched off.
    with contextlib.suppress(OSError), _opened(folder) as fd:
        project = _own(fd)
        if project:
            _set(fd, project, 0)


def _opened(folder: Path) -> contextlib.AbstractContextManager[int]:
    return sc.closing(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


def _own(fd: int) -> int:
    """The number of the open folder's project if it was given to it, and not to one above it; else 0."""
    project = _attributes(fd)[3]
    with sc.closing(os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)) as above:
        return project if project in _OURS and project != _attributes(above)[3] else 0


def _attributes(fd: int) -> tuple[int, ...]:
    return _ATTRIBUTES.unpack(fcntl.ioctl(fd, _GET_ATTRIBUTES, bytes(_ATTRIBUTES.size)))


def _assign(fd: int, project: int) -> None:
    flags, extent, extents, _, cloned = _attributes(fd)
    fcntl.ioctl(fd, _SET_ATTRIBUTES, _ATTRIBUTES.pack(flags | _INHERIT, extent, extents, project, cloned))


def _unused(fd: int) -> int:
    """A number without limit and without files."""
    while True:
        project = secrets.choice(_OURS)
        if _get(fd, project) == (0, 0):
            return project


def _get(fd: int, project: int) -> tuple[int, int]:
    """The limit of a project and what it takes, in bytes."""
    buffer = ctypes.create_string_buffer(_QUOTA.size)
    try:
        sc.syscall(sc.QUOTACTL_FD, fd, _GET, project, buffer)
    except OSError as error:
        if error.errno == errno.ENOENT:  # XFS has nothing of it
            return 0, 0
        raise
    told = _QUOTA.unpack(buffer.raw)
    return told[4] * _BLOCK, told[8] * _BLOCK


def _set(fd: int, project: int, size: int) -> None:
    content = _QUOTA.pack(_VERSION, _IS_PROJECT, _HARD, project, size // _BLOCK, 0, 0, 0, 0, 0)
    sc.syscall(sc.QUOTACTL_FD, fd, _SET, project, ctypes.create_string_buffer(content, _QUOTA.size))
