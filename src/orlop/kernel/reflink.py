"""Copies that share their blocks (reflinks), and what has changed since one was made.

Two files that share an extent have the same bytes there: so comparing two lists of extents tells, without reading
either file, where they may differ. That holds while both files exist, because an extent that is referred to is never
written in place. Only extents whose address says all about their content count; anything else counts as changed.
"""

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

_FICLONE, _FICLONERANGE = 0x40049409, 0x4020940D
_RANGE = struct.Struct("=qQQQ")
_FIEMAP = 0xC020660B
_HEADER, _EXTENT = struct.Struct("=QQLLLL"), struct.Struct("=QQQQQLLLL")
_SYNC = 1
_BATCH = 1024
_LAST, _UNWRITTEN = 0x1, 0x800
_OPAQUE = 0x2 | 0x4 | 0x8 | 0x80 | 0x100 | 0x200 | 0x400
"""FIEMAP_EXTENT_UNKNOWN, DELALLOC, ENCODED, DATA_ENCRYPTED, NOT_ALIGNED, DATA_INLINE, DATA_TAIL (linux/fiemap.h)."""

Range = tuple[int, int]
"""The first byte of a range, and the byte after its last."""


@dataclass(frozen=True, slots=True)
class Extent:
    """``length`` bytes of a file from ``start`` on, which are on the device at ``address``."""

    start: int
    address: int
    length: int
    flags: int

    @property
    def end(self) -> int:
        """The byte after the last."""
        return self.start + self.length

    @property
    def is_plain(self) -> bool:
        """Whether the address says all about the content."""
        return not self.flags & _OPAQUE


def clone(source: int, target: int) -> None:
    """Make the open file ``target`` share all of ``source`` (FICLONE); raises `OSError` (EOPNOTSUPP, EXDEV)."""
    fcntl.ioctl(target, _FICLONE, source)


def clone_range(source: int, start: int, length: int, target: int, place: int) -> None:
    """Let ``length`` bytes of the open file ``target`` from ``place`` on share those of ``source`` from ``start`` on.

    All are multiples of a block, unless ``source`` ends there (FICLONERANGE).
    """
    fcntl.ioctl(target, _FICLONERANGE, _RANGE.pack(source, start, length, place))


def is_possible(folder: int) -> bool:
    """Whether the filesystem of an open folder shares blocks between files: tried out, with files of no name."""
    try:
        source, target = (os.open(f"/proc/self/fd/{folder}", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC) for _ in "12")
    except OSError:
        return False
    try:
        os.write(source, bytes(4096))
        clone(source, target)
    except OSError:
        return False
    finally:
        os.close(source)
        os.close(target)
    return True


def extents(fd: int) -> Iterator[Extent]:
    """The extents of an open file in order, holes left out, what was written until now included (FIEMAP)."""
    start, last = 0, False
    while not last:
        buffer = bytearray(_HEADER.size + _BATCH * _EXTENT.size)
        _HEADER.pack_into(buffer, 0, start, (1 << 64) - 1 - start, _SYNC if start == 0 else 0, 0, _BATCH, 0)
        fcntl.ioctl(fd, _FIEMAP, buffer)
        count = _HEADER.unpack_from(buffer)[3]
        if not count:
            return
        for number in range(count):
            offset, address, length, _, _, flags, *_ = _EXTENT.unpack_from(buffer, _HEADER.size + number * _EXTENT.size)
            yield Extent(offset, address, length, flags)
        start, last = offset + length, bool(flags & _LAST)


def changed(old: int, new: int) -> list[Range]:
    """Where the open file ``new`` may differ from ``old``, in order and within ``new``; elsewhere they are equal.

    Both are on one filesystem. Raises `OSError` where that cannot tell extents.
    """
    size, shorter = os.fstat(new).st_size, os.fstat(old).st_size
    ranges = _differences(list(extents(old)), list(extents(new)))
    if shorter < size:
        ranges.append((shorter, size))
    return _joined((start, min(end, size)) for start, end in sorted(ranges) if start < size)


def _differences(old: list[Extent], new: list[Extent]) -> list[Range]:
    """What is covered by an extent of either, and not by the same plain extent of both."""
    found: list[Range] = []
    edges = sorted({edge for extent in (*old, *new) for edge in (extent.start, extent.end)})
    before, after = iter(old), iter(new)
    one, other = next(before, None), next(after, None)
    for start, end in pairwise(edges):
        while one is not None and one.end <= start:
            one = next(before, None)
        while other is not None and other.end <= start:
            other = next(after, None)
        if not _is_same(_at(one, start), _at(other, start), start):
            found.append((start, end))
    return found


def _at(extent: Extent | None, place: int) -> Extent | None:
    return extent if extent is not None and extent.start <= place else None


def _is_same(one: Extent | None, other: Extent | None, place: int) -> bool:
    if one is None or other is None:
        return one is other
    if not (one.is_plain and other.is_plain) or (one.flags ^ other.flags) & _UNWRITTEN:
        return False
    return place - one.start + one.address == place - other.start + other.address


def _joined(ranges: Iterator[Range]) -> list[Range]:
    result: list[Range] = []
    for start, end in ranges:
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result


def copy(source: int, target: int) -> None:
    """All bytes of the open file ``source`` to the empty file ``target``: shared where that works, holes kept."""
    with suppress(OSError):
        clone(source, target)
        return
    os.ftruncate(target, size := os.fstat(source).st_size)
    start = 0
    while start < size:
        try:
            start = os.lseek(source, start, os.SEEK_DATA)
        except OSError:
            return
        end = os.lseek(source, start, os.SEEK_HOLE)
        while start < end:
            start += os.copy_file_range(source, target, end - start, start, start)
