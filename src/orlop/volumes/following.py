"""The clone of a large file follows its original only where that was written to, and remembers where that was.

To clone a file anew takes the kernel as long as the file has extents, and whoever writes to it waits: half a second
for a database that was written to here and there for a while. To list its extents is six times as quick, waits for
nobody, and hardly any of them have changed.

What happens to the clone, in an order in which it can be killed, and the machine as well (XFS writes all of these to
its log, where nothing later is without what is earlier):

    1. its history says, since when, where it is going to be another
    2. its blocks
    3. its owner, mode, attributes and times, among them the fingerprint of what the original is by now

So the history has too much rather than too little.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from orlop.kernel import reflink
from orlop.kernel import syscalls as sc
from orlop.kernel.reflink import Range
from orlop.snapshots import names

HISTORY: Final = names.OWN_ATTRIBUTES + "history"
"""The attribute of a clone that has its history."""
_LEAST: Final = 4 << 20
"""Bytes: smaller files have few extents."""
_DEARER: Final = 2.5
"""How much longer it takes to share a range than an extent of a whole clone: measured, 33 and 14 microseconds."""
_FOREVER: Final = 1 << 60
_UNIT: Final = 4096
_ROOM: Final = 32 << 10
"""Bytes of a history; an attribute may have 64 KiB."""


class Step(msgspec.Struct, array_like=True, frozen=True):
    """A clone that had changed last at ``changed`` (nanoseconds) became another in ``ranges``.

    These are counted in blocks: what lies between a range and the one before it, and how long it is.
    """

    changed: int
    ranges: list[tuple[int, int]]


class History(msgspec.Struct, array_like=True):
    """The steps of the clone that is ``inode``, the oldest first: an attribute may have come with a copy."""

    inode: int
    steps: list[Step]


_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(History).decode


def follow(source: str, clone: str, original: os.stat_result, copy: os.stat_result) -> bool:
    """Let the content of ``clone``, which looks as ``copy``, be that of ``source``; its times say nothing afterwards.

    False if it should be cloned anew; it may be neither then. Somebody who writes to ``source`` meanwhile may have
    some of that in the clone, and not what he wrote before.
    """
    are_files = stat.S_ISREG(original.st_mode) and stat.S_ISREG(copy.st_mode)
    if not are_files or original.st_size < _LEAST or (original.st_nlink, copy.st_nlink) != (1, 1):
        return False
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    with (
        sc.closing(os.open(source, os.O_RDONLY | os.O_NOATIME | flags)) as old,
        sc.closing(os.open(clone, os.O_RDWR | flags)) as new,
    ):
        try:
            return _follow(old, new, copy)
        except OSError:
            return False


def since(clone: int, changed: int) -> list[Range] | None:
    """Where the open ``clone`` may be another than when it had ``changed`` last; None if it does not remember."""
    status = os.fstat(clone)
    steps = _steps(clone, status.st_ino)
    first = next((number for number, step in enumerate(steps) if step.changed == changed), None)
    if first is None:
        return [] if status.st_ctime_ns == changed else None
    return reflink.within((found for step in steps[first:] for found in _unpacked(step.ranges)), status.st_size)


def _follow(old: int, new: int, copy: os.stat_result) -> bool:
    size = os.fstat(old).st_size
    # The first block always: to share it waits for what is on its way to the disk around the cache, which is then seen.
    begin = [(0, min(_UNIT, size))]
    end = [] if size == copy.st_size else [(min(size, copy.st_size), _FOREVER)]
    _remember(new, copy, [*begin, *end])
    reflink.follow(old, new, begin, size)
    ranges, count = reflink.compared(new, old)
    if len(ranges) * _DEARER > count:
        return False
    _remember(new, copy, ranges)
    reflink.follow(old, new, ranges, size)
    return True


def _remember(clone: int, copy: os.stat_result, ranges: Iterable[Range]) -> None:
    """Add to the history; of old steps as many go as have no room. Raises `OSError` if there is none for this one.

    What began within one tick of the clock is one step.
    """
    steps, changed = _steps(clone, copy.st_ino), copy.st_ctime_ns
    if steps and steps[-1].changed == changed:
        ranges = [*_unpacked(steps.pop().ranges), *ranges]
    history = History(copy.st_ino, [*steps, Step(changed, _packed(sorted(ranges)))])
    while len(history.steps) > 1 and len(_encode(history)) > _ROOM:
        history.steps.pop(0)
    os.setxattr(clone, HISTORY, _encode(history))


def _steps(clone: int, inode: int) -> list[Step]:
    try:
        history = _decode(os.getxattr(clone, HISTORY))
    except (OSError, msgspec.MsgspecError):
        return []
    return history.steps if history.inode == inode else []


def _packed(ranges: Iterable[Range]) -> list[tuple[int, int]]:
    packed, place = list[tuple[int, int]](), 0
    for start, end in ranges:
        first, last = max(start // _UNIT, place), -(-end // _UNIT)
        if first < last:
            packed.append((first - place, last - first))
            place = last
    return packed


def _unpacked(packed: Iterable[tuple[int, int]]) -> Iterator[Range]:
    place = 0
    for gap, length in packed:
        yield (place + gap) * _UNIT, (place + gap + length) * _UNIT
        place += gap + length
