"""Copies that share their blocks (reflinks), and what has changed since one was made.

Two files that share an extent have the same bytes there: so comparing two lists of extents tells, without reading
either file, where they may differ. That holds while both files exist, because an extent that is referred to is never
written in place. Only extents whose address says all about their content count; anything else counts as changed.
"""

import fcntl
import itertools
import math
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress

_FICLONE, _FICLONERANGE = 0x40049409, 0x4020940D
_RANGE = struct.Struct("=qQQQ")
_FIEMAP = 0xC020660B
_HEADER, _EXTENT = struct.Struct("=QQLLLL"), struct.Struct("=QQQ16xL12x")
_SYNC = 1
_BATCH = 1024
_LAST, _UNWRITTEN = 0x1, 0x800
_OPAQUE = 0x2 | 0x4 | 0x8 | 0x80 | 0x100 | 0x200 | 0x400
"""FIEMAP_EXTENT_UNKNOWN, DELALLOC, ENCODED, DATA_ENCRYPTED, NOT_ALIGNED, DATA_INLINE, DATA_TAIL (linux/fiemap.h)."""

Range = tuple[int, int]
"""The first byte of a range, and the byte after its last."""
Extent = tuple[int, int, int, int]
"""Where it begins in the file, its address on the device, its length in bytes, and its flags (linux/fiemap.h)."""
_Piece = tuple[float, float, int, int]
"""Written bytes: from, to, how far their address is from their place, and the flags that make that say nothing."""
_END: _Piece = (math.inf, math.inf, 0, 0)


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
        offset = length = flags = 0
        for extent in _EXTENT.iter_unpack(memoryview(buffer)[_HEADER.size : _HEADER.size + count * _EXTENT.size]):
            yield extent
            offset, _, length, flags = extent
        start, last = offset + length, bool(flags & _LAST)


def changed(old: int, new: int) -> list[Range]:
    """Where the open file ``new`` may differ from ``old``, in order and within ``new``; elsewhere they are equal.

    Both are on one filesystem. Raises `OSError` where that cannot tell extents.
    """
    return compared(old, new)[0]


def compared(old: int, new: int) -> tuple[list[Range], int]:
    """What `changed` says, and how many extents ``new`` has."""
    size, shorter = os.fstat(new).st_size, os.fstat(old).st_size
    number = itertools.count()
    pieces = (piece for piece, _ in zip(_written(new), number))  # noqa: B905 - one of them never ends
    ranges = list(_differences(_written(old), pieces))
    if shorter < size:
        ranges.append((shorter, size))
    return within(ranges, size), next(number)


def within(ranges: Iterable[Range], size: int) -> list[Range]:
    """The ranges in order, as far as a file of ``size`` bytes has them, those that touch put together."""
    return _joined((start, min(end, size)) for start, end in sorted(ranges) if start < size)


def follow(source: int, target: int, ranges: Iterable[Range], size: int) -> None:
    """Let ``size`` bytes of the open file ``target`` be what ``source`` has, where only ``ranges`` may differ.

    What is written to ``source`` meanwhile may be in ``target``, or not. Raises `OSError` if ``source`` gets shorter.
    """
    block = os.fstatvfs(source).f_bsize
    os.ftruncate(target, min(size, os.fstat(target).st_size))
    for start, end in ranges:
        begin = start - start % block
        clone_range(source, begin, end - begin, target, begin)
    os.ftruncate(target, size)


def _written(fd: int) -> Iterator[_Piece]:
    """What is not written reads as zeros, as a hole does."""
    for start, address, length, flags in extents(fd):
        if not flags & _UNWRITTEN:
            yield start, start + length, address - start, flags & _OPAQUE


def _differences(old: Iterator[_Piece], new: Iterator[_Piece]) -> Iterator[Range]:
    """What is covered by a piece of either, and not by both with one address that says all."""
    one, other, place = next(old, _END), next(new, _END), 0.0
    while one is not _END or other is not _END:
        if one == other and not one[3]:  # nearly all
            place = one[1]
            one, other = next(old, _END), next(new, _END)
            continue
        start = max(place, min(one[0], other[0]))
        has_one, has_other = one[0] <= start, other[0] <= start
        # To the next edge: where a piece that has begun ends, or the other begins.
        place = min(one[1] if has_one else one[0], other[1] if has_other else other[0])
        if not (has_one and has_other and one[2] == other[2]) or one[3] or other[3]:
            yield int(start), int(place)
        if one[1] <= place:
            one = next(old, _END)
        if other[1] <= place:
            other = next(new, _END)


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
