"""Loop devices: a file as a block device, freed by the kernel itself when the last user has gone (loop(4)).

Every device is made with the autoclear flag, so that no crash of ours can leak one.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orlop.kernel.syscalls import closing

_CTL_GET_FREE, _GET_STATUS, _SET_CAPACITY, _CONFIGURE = 0x4C82, 0x4C05, 0x4C07, 0x4C0A
_AUTOCLEAR, _DIRECT_IO = 4, 16
_INFO64 = struct.Struct("=QQQQQIIII64s64s32s2Q")
"""``struct loop_info64``: device, inode, rdevice, offset, sizelimit, number, encryption, flags, names, key, init."""
_CONFIG = struct.Struct(f"=II{_INFO64.size}s8Q")
"""``struct loop_config``: fd, block_size, info, reserved."""
_XFS_SECTOR = slice(102, 104)
"""Where an XFS has the size of its sectors (``sb_sectsize`` of ``struct xfs_dsb``)."""


@contextmanager
def attached(image: Path) -> Iterator[str]:
    """A loop device for ``image``: the one it has, or a new one; it lives on while something mounted uses it.

    A second device for the same file would let two filesystems write over each other, so one that exists is shared.
    """
    fd, device = _existing(image) or _new(image)
    try:
        yield device
    finally:
        os.close(fd)


def refresh(image: Path) -> str | None:
    """Tell the device of ``image`` that the file has grown; returns the device, None if it has none."""
    existing = _existing(image)
    if existing is None:
        return None
    fd, device = existing
    try:
        fcntl.ioctl(fd, _SET_CAPACITY)
    finally:
        os.close(fd)
    return device


def is_attached(image: Path) -> bool:
    """Whether ``image`` has a device: then its filesystem may be mounted, in whichever namespace."""
    return device(image) is not None


def device(image: Path) -> str | None:
    """The number of ``image``'s device, as mountinfo has it; None if there is none, or no such file."""
    existing = _existing(image) if image.exists() else None
    if existing is None:
        return None
    with closing(existing[0]) as fd:
        number = os.fstat(fd).st_rdev
    return f"{os.major(number)}:{os.minor(number)}"


def written(image: Path) -> int:
    """How many sectors have been written to the device of ``image``; raises `OSError` if it has none."""
    existing = _existing(image)
    if existing is None:
        raise FileNotFoundError(errno.ENOENT, "no loop device", str(image))
    fd, device = existing
    os.close(fd)
    # The seventh number (Documentation/ABI/stable/sysfs-block).
    return int(Path("/sys/block", Path(device).name, "stat").read_text().split()[6])


def _existing(image: Path) -> tuple[int, str] | None:
    # By device and inode: a path may lead elsewhere in another mount namespace, such as that of a plugin that was
    # restarted, and the device would not be found again.
    there = image.stat()
    wanted = (there.st_dev, there.st_ino)
    for bound in Path("/sys/block").glob("loop*/loop"):
        device = f"/dev/{bound.parent.name}"
        if _backing(device) != wanted:
            continue
        try:
            fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        except OSError:  # it was freed while we looked
            continue
        # Holding it open keeps it; now make sure that it is still the same file's.
        if _file_behind(fd) == wanted:
            return fd, device
        os.close(fd)
    return None


def _backing(device: str) -> tuple[int, int] | None:
    try:
        fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return _file_behind(fd)
    finally:
        os.close(fd)


def _file_behind(device: int) -> tuple[int, int] | None:
    """The file that the open loop device shows, as device and inode; None if it was freed."""
    try:
        told = fcntl.ioctl(device, _GET_STATUS, bytes(_INFO64.size))
    except OSError:
        return None
    device_number, inode = _INFO64.unpack(told)[:2]
    return device_number, inode


def _new(image: Path) -> tuple[int, str]:
    backing = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    try:
        while True:
            with Path("/dev/loop-control").open("rb") as control:
                number = fcntl.ioctl(control, _CTL_GET_FREE)
            device = f"/dev/loop{number}"
            fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
            try:
                _configure(fd, backing, image)
            except OSError as error:
                os.close(fd)
                if error.errno == errno.EBUSY:  # somebody was quicker
                    continue
                raise
            return fd, device
    finally:
        os.close(backing)


def _configure(device: int, backing: int, image: Path) -> None:
    name, block = os.fsencode(image)[-63:], _sector(backing)
    for flags in (_AUTOCLEAR | _DIRECT_IO, _AUTOCLEAR):
        info = _INFO64.pack(0, 0, 0, 0, 0, 0, 0, 0, flags, name, b"", b"", 0, 0)
        try:
            fcntl.ioctl(device, _CONFIGURE, _CONFIG.pack(backing, block, info, *[0] * 8))
        except OSError as error:
            # Not every filesystem under the image can read and write around the page cache.
            if error.errno == errno.EINVAL and flags & _DIRECT_IO:
                continue
            raise
        return


def _sector(backing: int) -> int:
    """The size of the device's blocks, in bytes, that the filesystem in the open file was made for.

    Asked for nothing, newer kernels (6.18) take what the file is best read by: 4 KiB for one that shares blocks with
    another, and no filesystem with smaller sectors can be mounted any more.
    """
    head = os.pread(backing, _XFS_SECTOR.stop, 0)
    return int.from_bytes(head[_XFS_SECTOR]) if head.startswith(b"XFSB") else 512
