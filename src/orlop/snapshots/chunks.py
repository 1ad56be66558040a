"""Where to cut a file: at places that its content decides, or every 32 KiB for one that is rewritten in place.

Content-defined cuts survive insertions. A database rewrites pages where they are: with chunks of a megabyte, 1 % of
changed pages make nearly all of them new; with blocks of 32 KiB a tenth of that.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

MIN: Final = 512 << 10
MAX: Final = 8 << 20
BLOCK: Final = 32 << 10
"""Half as long, and 1 % of changed pages of 8 KiB store half as much, but every gigabyte takes twice the index."""
HEAD: Final = (64 << 10) + 4096
"""Bytes of a file's beginning in which `policy` looks for signs of a database or a disk."""
_AVERAGE: Final = 1 << 20
_WINDOW: Final = MAX + (MAX >> 1)
_HOLE: Final = 1 << 20
"""A shorter hole is read as the zeros that it stands for."""

Cutting = Literal["content", "blocks"]


@dataclass(frozen=True, slots=True)
class Before:
    """The file in the snapshot before: its size, whether it was cut in blocks, whether its inode was written since."""

    size: int
    in_blocks: bool
    rewritten: bool


@dataclass(frozen=True, slots=True)
class Zeros:
    """A part of a file that is not there: ``size`` zeros, which need not be read."""

    size: int


def policy(size: int, head: bytes, before: Before | None) -> Cutting:
    """How to cut a file of which ``head`` is the beginning."""
    if size <= MIN:
        return "content"
    # Written and as long as before: somebody wrote into it, and will again.
    if before is not None and (before.in_blocks or (before.rewritten and before.size == size)):
        return "blocks"
    return "blocks" if is_rewritten_in_place(head) else "content"


def is_rewritten_in_place(head: bytes) -> bool:
    """Whether it begins as SQLite, PostgreSQL, InnoDB, a qcow2 image, or a disk with a filesystem does."""
    starts = (b"SQLite format 3\0", b"QFI\xfb", b"XFSB")
    placed = ((510, b"\x55\xaa"), (1080, b"\x53\xef"), (512, b"LABELONE"), (512, b"EFI PART"), (65600, b"_BHRfS_M"))
    return (
        head.startswith(starts)
        or any(head[at : at + len(sign)] == sign for at, sign in placed)
        or _is_innodb(head)
        or _is_postgres(head)
    )


def cut(fd: int, start: int, end: int, cutting: Cutting) -> Iterator[memoryview | Zeros]:
    """The pieces of a file from ``start`` to ``end``, in order; each view is valid until the next is taken.

    A file that has become shorter gives fewer.
    """
    for first, last, hole in _extents(fd, start, end):
        if hole:
            yield from _zeros(last - first)
        elif cutting == "blocks":
            yield from _blocks(fd, first, last)
        else:
            yield from _content(fd, first, last)


def _extents(fd: int, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """Data and holes (True) in turn; holes are whole blocks, so that those after them stay where they were."""
    if end - start < _HOLE:
        # To ask takes the longer the more extents a file has, and a database has thousands of changed places.
        if start < end:
            yield start, end, False
        return
    place = start
    while place < end:
        data = _seek(fd, place, os.SEEK_DATA, end)
        hole_end = data if data == end else data - data % BLOCK
        if hole_end - place >= _HOLE:
            yield place, hole_end, True
            place = hole_end
            continue
        data_end = _end_of_data(fd, max(data, place), end)
        yield place, data_end, False
        place = data_end


def _end_of_data(fd: int, place: int, end: int) -> int:
    """Where the next long hole begins."""
    while place < end:
        hole = _seek(fd, place, os.SEEK_HOLE, end)
        data = _seek(fd, hole, os.SEEK_DATA, end)
        begin = min(-(-hole // BLOCK) * BLOCK, end)
        if data - begin >= _HOLE + BLOCK:
            return begin
        place = data
    return end


def _seek(fd: int, place: int, what: int, end: int) -> int:
    if place >= end:
        return end
    try:
        return min(os.lseek(fd, place, what), end)
    except OSError:  # no data any more; or a filesystem that knows no holes, and then all of it is data
        return end


def _zeros(size: int) -> Iterator[Zeros]:
    for _ in range(size // MAX):
        yield Zeros(MAX)
    if size % MAX:
        yield Zeros(size % MAX)


def _blocks(fd: int, start: int, end: int) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(min(32 * BLOCK, end - start)))
    place = start
    while place < end and (count := _fill(fd, buffer[: end - place], place)):
        for at in range(0, count, BLOCK):
            yield buffer[at : min(at + BLOCK, count)]
        place += count


def _content(fd: int, start: int, end: int) -> Iterator[memoryview]:
    from pyfastcdc import FastCDC  # takes longer to import than all else here, and processes for small files never do

    cutter = FastCDC(avg_size=_AVERAGE, min_size=MIN, max_size=MAX)
    buffer = memoryview(bytearray(min(_WINDOW, end - start)))
    place = start
    while place < end and (count := _fill(fd, buffer[: end - place], place)):
        last = place + count >= end or count < len(buffer)
        used = 0
        for size in [chunk.length for chunk in cutter.cut_buf(buffer[:count])]:
            # The last one may go on beyond the window: it is cut again at the beginning of the next.
            if used + size < count or last:
                yield buffer[used : used + size]
                used += size
        place += used


def _fill(fd: int, buffer: memoryview, place: int) -> int:
    count = 0
    while count < len(buffer) and (got := os.preadv(fd, [buffer[count:]], place + count)):
        count += got
    return count


def _is_innodb(head: bytes) -> bool:
    return head[4:8] == bytes(4) and head[24:26] == b"\0\x08" and head[:4] != bytes(4)


def _is_postgres(head: bytes) -> bool:
    lower, upper, special, version = (int.from_bytes(head[at : at + 2], "little") for at in (12, 14, 16, 18))
    return version == 8192 | 4 and 24 <= lower <= upper <= special <= 8192
