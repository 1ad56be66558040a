"""System calls that Python's standard library does not have, with errors as `OSError`.

The numbers are the same on every architecture: all calls since Linux 5.1 are numbered from 424 up alike
(linux/include/uapi/asm-generic/unistd.h).
"""

import contextlib
import ctypes
import os
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)

OPEN_TREE, MOVE_MOUNT, FSOPEN, FSCONFIG, FSMOUNT, MOUNT_SETATTR, QUOTACTL_FD = 428, 429, 430, 431, 432, 442, 443
STATMOUNT, LISTMOUNT = 457, 458

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 4
FSOPEN_CLOEXEC = FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING, FSCONFIG_CMD_CREATE = 0, 1, 6

CLONE_FS, CLONE_NEWNS = 0x200, 0x20000
MNT_DETACH = 2
ATIME = 0x70
"""The bits of MOUNT_ATTR_* that are about access times."""
UMOUNT_NOFOLLOW = 8
PR_SET_DUMPABLE = 4

_LSMT_ROOT, _MANY_IDS = 0xFFFFFFFFFFFFFFFF, 8192
_UNSHARE_RANGE = 0x40
_PUNCH_HOLE = 0x02 | 0x01  # FALLOC_FL_PUNCH_HOLE, and the size stays
_STATX_MNT_ID, _STATX_MNT_ID_UNIQUE = 0x1000, 0x4000
_STATMOUNT_SB_BASIC, _STATMOUNT_MNT_ROOT, _STATMOUNT_MNT_POINT = 0x1, 0x8, 0x10
_STATMOUNT_TEXTS = 512  # where they begin in struct statmount
_STATX_ATTR_MOUNT_ROOT = 0x2000


@contextlib.contextmanager
def closing(fd: int) -> Iterator[int]:
    """``fd``, closed afterwards."""
    try:
        yield fd
    finally:
        os.close(fd)


def syscall(number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Call the kernel; raises `OSError` with its errno."""
    # Every argument is a full register: ctypes would pass a bare int as 32 bits.
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return checked(libc.syscall(ctypes.c_long(number), *words))


def unshare_blocks(fd: int, start: int, length: int) -> None:
    """Give this range of an open file blocks that no other file shares (fallocate(2))."""
    checked(libc.fallocate(fd, _UNSHARE_RANGE, ctypes.c_int64(start), ctypes.c_int64(length)))


def punch_hole(fd: int, start: int, length: int) -> None:
    """Give back the blocks of this range of an open file; it reads as zeros (fallocate(2))."""
    if length:
        checked(libc.fallocate(fd, _PUNCH_HOLE, ctypes.c_int64(start), ctypes.c_int64(length)))


def umount(target: Path | bytes, flags: int = 0) -> None:
    """Take the topmost mount off ``target`` (umount2(2)), never following a symbolic link."""
    checked(libc.umount2(os.fsencode(target), flags | UMOUNT_NOFOLLOW), target)


def clone_tree(source: Path, *, recursive: bool = False, folder: int = AT_FDCWD) -> int:
    """A file descriptor for what is seen at ``source``, as a mount that is nowhere yet (open_tree(2)).

    A relative path begins at the open ``folder``.
    """
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    return syscall(OPEN_TREE, folder, os.fsencode(source), flags)


def set_attributes(tree: int, attributes: int) -> None:
    """Change a mount's MOUNT_ATTR_* (mount_setattr(2)); of those about access times, only one may be given."""
    clear = ATIME if attributes & ATIME else 0
    buffer = ctypes.create_string_buffer(struct.pack("=QQQQ", attributes, clear, 0, 0), 32)
    syscall(MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH | AT_RECURSIVE, buffer, 32)


def move_tree(tree: int, target: Path | bytes) -> None:
    """Make the mount ``tree`` visible at ``target`` (move_mount(2))."""
    syscall(MOVE_MOUNT, tree, b"", AT_FDCWD, os.fsencode(target), MOVE_MOUNT_F_EMPTY_PATH)


def mount_ids(namespace: int) -> bytes:
    """The ids of all mounts of the mount namespace with this number, 8 bytes each, in order (listmount(2), Linux 6.11).

    An id is never used again. Raises `OSError`, also where the kernel is older.
    """
    found, last = b"", 0
    while not found or len(found) % _MANY_IDS == 0:
        buffer = ctypes.create_string_buffer(_MANY_IDS)
        request = struct.pack("=IIQQQ", 32, 0, _LSMT_ROOT, last, namespace)
        count = syscall(LISTMOUNT, request, buffer, _MANY_IDS // 8, 0)
        if not count:
            break
        found += buffer.raw[: count * 8]
        last = int.from_bytes(found[-8:], sys.byteorder)
    return found


def keep_mounts_private() -> None:
    """Let what is mounted in this mount namespace from now on be seen in no other (MS_REC | MS_PRIVATE)."""
    checked(libc.mount(None, b"/", None, ctypes.c_ulong(0x4000 | 1 << 18), None))


def prctl(option: int, value: int) -> None:
    """Change something of this process (prctl(2))."""
    checked(libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0))


def unshare(flags: int) -> None:
    """Give this thread something of its own (unshare(2))."""
    checked(libc.unshare(flags))


def setns(namespace: int, kind: int) -> None:
    """Let this thread live in ``namespace``, an open file below ``/proc/PID/ns`` (setns(2))."""
    checked(libc.setns(namespace, kind))


def magic(path: Path) -> int:
    """The number that tells which type of filesystem ``path`` is on (statfs(2), linux/magic.h)."""
    buffer = ctypes.create_string_buffer(256)
    checked(libc.statfs(os.fsencode(path), buffer), path)
    return ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF


def sync_filesystem(fd: int) -> None:
    """Write back all of the filesystem of an open file (syncfs(2)); raises `OSError` if anything was lost."""
    checked(libc.syncfs(fd))


def fanotify_init(flags: int, opening: int) -> int:
    """A group, whose events come with files opened as ``opening`` says (fanotify_init(2))."""
    return checked(libc.fanotify_init(flags, opening))


def fanotify_mark(group: int, flags: int, mask: int, file: int) -> None:
    """Let the group have the events ``mask`` of the open ``file``, or of its filesystem (fanotify_mark(2))."""
    checked(libc.fanotify_mark(group, flags, ctypes.c_uint64(mask), file, None))


def checked(result: int, path: Path | bytes | None = None) -> int:
    """What a function of `libc` has returned; raises `OSError`, about ``path``, if it says that it has not worked."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), *([] if path is None else [os.fsdecode(path)]))
    return result


class _Statx(ctypes.Structure):
    """``struct statx`` as far as it is read here; the rest is padding (statx(2))."""

    _fields_ = (
        ("mask", ctypes.c_uint32),
        ("blksize", ctypes.c_uint32),
        ("attributes", ctypes.c_uint64),
        ("_counts", ctypes.c_uint8 * 40),
        ("attributes_mask", ctypes.c_uint64),
        ("_times", ctypes.c_uint8 * 64),
        ("_rdev", ctypes.c_uint32 * 2),
        ("dev_major", ctypes.c_uint32),
        ("dev_minor", ctypes.c_uint32),
        ("mnt_id", ctypes.c_uint64),
        ("_rest", ctypes.c_uint8 * 104),
    )


@dataclass(frozen=True, slots=True)
class MountRoot:
    """A mount, seen from its root: its id and its filesystem's device number as in mountinfo."""

    id: int
    device: str

    @property
    def on_device(self) -> bool:
        """Whether its filesystem is on a block device."""
        return not self.device.startswith("0:")


def mount_at(path: Path) -> MountRoot | None:
    """The mount whose root ``path`` is; None where ``path`` is no mount point.

    Raises `OSError`: ENOENT where nothing is, ENOTCONN where a FUSE server died. Costs the same however many mounts
    there are.
    """
    found = _statx(path)
    if not found.attributes & _STATX_ATTR_MOUNT_ROOT:
        return None
    return MountRoot(found.mnt_id, f"{found.dev_major}:{found.dev_minor}")


@dataclass(frozen=True, slots=True)
class MountShown:
    """A mount: the folder ``root`` of the filesystem ``device`` is seen at ``target``, each as in mountinfo."""

    device: str
    root: str
    target: str


def mount_of(path: Path) -> MountShown:
    """The mount which ``path`` is in (statmount(2), Linux 6.8); raises `OSError`, also where the kernel is older.

    Costs the same however many mounts there are.
    """
    number = _statx(path, _STATX_MNT_ID_UNIQUE).mnt_id
    wanted, size = _STATMOUNT_SB_BASIC | _STATMOUNT_MNT_ROOT | _STATMOUNT_MNT_POINT, _STATMOUNT_TEXTS + 2 * 4096
    buffer = ctypes.create_string_buffer(size)
    syscall(STATMOUNT, struct.pack("=IIQQ", 24, 0, number, wanted), buffer, size, 0)
    major, minor, root, target = struct.unpack_from("=16xII80xII", buffer)
    texts = (buffer.raw[_STATMOUNT_TEXTS + start :].partition(b"\0")[0] for start in (root, target))
    return MountShown(f"{major}:{minor}", *map(os.fsdecode, texts))


def mount_id(path: Path) -> int:
    """The id that mountinfo has of the mount which ``path`` is in; raises `OSError` as `mount_at` does."""
    return int(_statx(path).mnt_id)


def _statx(path: Path, mask: int = _STATX_MNT_ID) -> _Statx:
    buffer = _Statx()
    # AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT | AT_SYMLINK_NOFOLLOW: a server that hangs is not asked
    flags = 0x4000 | 0x800 | 0x100
    checked(libc.statx(AT_FDCWD, os.fsencode(path), flags, mask, ctypes.byref(buffer)), path)
    return buffer
