"""Subvolumes of btrfs: made, copied in an instant, deleted."""

import fcntl
import os
import struct
from pathlib import Path

from orlop.kernel import syscalls as sc

_SUBVOL_CREATE, _SNAP_CREATE_V2, _SNAP_DESTROY = 0x5000940E, 0x50009417, 0x5000940F
_READ_ONLY = 1 << 1
_MAGIC = 0x9123683E
_SUBVOLUME_INODE = 256
_NAME = 4087
_V1, _V2 = struct.Struct("=q4088s"), struct.Struct("=qQQ4Q4040s")


def is_subvolume(folder: Path) -> bool:
    """Whether ``folder`` is the root of a subvolume (btrfs-subvolume(8): its inode number is 256)."""
    return folder.stat().st_ino == _SUBVOLUME_INODE and is_btrfs(folder)


def is_btrfs(folder: Path) -> bool:
    """Whether ``folder`` is on btrfs."""
    return sc.magic(folder) == _MAGIC


def create(place: Path) -> None:
    """Make an empty subvolume; raises `FileExistsError`."""
    _call(_SUBVOL_CREATE, place.parent, _V1.pack(0, _name(place)))


def snapshot(source: Path, place: Path, *, read_only: bool = True) -> None:
    """Make ``place`` a subvolume with all that ``source``, a subvolume too, has now; raises `FileExistsError`."""
    with sc.closing(os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
        flags = _READ_ONLY if read_only else 0
        _call(_SNAP_CREATE_V2, place.parent, _V2.pack(fd, 0, flags, 0, 0, 0, 0, _name(place)))


def delete(place: Path) -> None:
    """Delete a subvolume with all that is in it; none is fine."""
    if place.exists():
        _call(_SNAP_DESTROY, place.parent, _V1.pack(0, _name(place)))


def _call(number: int, parent: Path, argument: bytes) -> None:
    with sc.closing(os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
        # Only what can be written to may be larger than a kilobyte.
        fcntl.ioctl(fd, number, bytearray(argument))


def _name(place: Path) -> bytes:
    name = os.fsencode(place.name)
    if len(name) >= _NAME:
        raise OSError(36, "file name too long", str(place))
    return name
