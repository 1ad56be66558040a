"""System calls that Python's standard library does not have, with errors as `OSError`.

The numbers are the same on every architecture: all calls since Linux 5.1 are numbered from 424 up alike
(linux/include/uapi/asm-generic/unistd.h).
"""

import ctypes
import os
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

OPEN_TREE, MOVE_MOUNT, FSOPEN, FSCONFIG, FSMOUNT, MOUNT_SETATTR = 428, 429, 430, 431, 432, 442

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 4
FSOPEN_CLOEXEC = FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING, FSCONFIG_CMD_CREATE = 0, 1, 6

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

_STATX_MNT_ID = 0x1000
_STATX_ATTR_MOUNT_ROOT = 0x2000


def syscall(number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Call the kernel; raises `OSError` with its errno."""
    # Every argument is a full register: ctypes would pass a bare int as 32 bits.
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *words)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def umount(target: Path, flags: int = 0) -> None:
    """Take the topmost mount off ``target`` (umount2(2)), never following a symbolic link."""
    if _libc.umount2(os.fsencode(target), flags | UMOUNT_NOFOLLOW) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(target))


class _Statx(ctypes.Structure):
    """``struct statx`` as far as it is read here; the rest is padding (statx(2))."""

    _fields_ = (
        ("mask", ctypes.c_uint32),
        ("blksize", ctypes.c_uint32),
        ("attributes", ctypes.c_uint64),
        ("_counts", ctypes.c_uint8 * 40),
        ("attributes_mask", ctypes.c_uint64),
        ("_times", ctypes.c_uint8 * 64),
        ("_devices", ctypes.c_uint8 * 16),
        ("mnt_id", ctypes.c_uint64),
        ("_rest", ctypes.c_uint8 * 104),
    )


def mount_root(path: Path) -> int | None:
    """The id of the mount whose root ``path`` is, as in mountinfo; None where ``path`` is no mount point.

    Raises `OSError`: ENOENT where nothing is, ENOTCONN where a FUSE server died. Costs the same however many mounts
    there are.
    """
    buffer = _Statx()
    # AT_NO_AUTOMOUNT | AT_SYMLINK_NOFOLLOW
    if _libc.statx(AT_FDCWD, os.fsencode(path), 0x800 | 0x100, _STATX_MNT_ID, ctypes.byref(buffer)) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(path))
    return buffer.mnt_id if buffer.attributes & _STATX_ATTR_MOUNT_ROOT else None
