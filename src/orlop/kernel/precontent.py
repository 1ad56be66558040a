"""Who opens or reads a file waits until somebody has filled it (fanotify(7), pre-content events of Linux 6.14).

A file is marked before anybody can open it: one that was opened before its mark is read without a word. The marks live
as long as any process has the group open; when the last one closes it, the kernel lets everybody through.
"""

import errno
import os
import select
import struct
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orlop.kernel import syscalls as sc

_CLOEXEC, _NONBLOCK, _PRE_CONTENT, _UNLIMITED, _REPORT_TID = 0x1, 0x2, 0x8, 0x30, 0x100
_ADD, _REMOVE = 0x1, 0x2
_OPEN_PERM, _PRE_ACCESS = 0x10000, 0x100000
_ALLOW, _DENY = 1, 2
_WITH_RANGE = 6
_EVENT, _INFO, _RANGE, _ANSWER = (struct.Struct(f"={form}") for form in ("IBBHQii", "BBH", "BBHIQQ", "iI"))
_READ: Final = 4096
"""Bytes: a few dozen events at a time. Those that were read are lost to others if this process dies."""


@dataclass(frozen=True, slots=True)
class Event:
    """Thread ``thread`` waits to open a file, or (``is_access``) to use ``count`` bytes from ``offset`` on.

    ``count`` 0 is a copy of all; of a change of length the kernel names at most one page. ``fd`` is the file, open for
    reading: the kernel knows the event by this number, so it is to be closed after the answer.
    """

    fd: int
    thread: int
    is_access: bool
    offset: int = 0
    count: int = 0


class Group:
    """Marks, and the events of those who wait. Threads may share it; events are read by one."""

    def __init__(self, fd: int | None = None):
        """A new group, or the one behind ``fd``; raises `OSError` (EINVAL) where the kernel has no such thing."""
        flags = _CLOEXEC | _NONBLOCK | _PRE_CONTENT | _UNLIMITED | _REPORT_TID
        opening = os.O_RDONLY | os.O_CLOEXEC | os.O_NOATIME
        self.fd = sc.fanotify_init(flags, opening) if fd is None else fd

    def close(self) -> None:
        """Let go of it; if nobody else has it, all who wait go on, and see what is there."""
        os.close(self.fd)

    def mark(self, file: int) -> None:
        """From now on whoever opens or uses the file that is open as ``file`` waits."""
        self._change(_ADD, file)

    def unmark(self, file: int) -> None:
        """Nobody waits for it any more; no mark is fine."""
        with suppress(FileNotFoundError):
            self._change(_REMOVE, file)

    def events(self, seconds: float) -> list[Event]:
        """Those who wait now; none if there is none for so long."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return []
        try:
            return list(_events(os.read(self.fd, _READ)))
        except BlockingIOError:
            return []

    def allow(self, number: int) -> None:
        """Let whoever waits with the event of this number go on; nobody is fine."""
        self._answer(number, _ALLOW)

    def refuse(self, number: int) -> None:
        """Give whoever waits with the event of this number an I/O error; nobody is fine."""
        # The code goes into the upper byte; the kernel takes few others, and lets those who wait hang for them.
        self._answer(number, _DENY | errno.EIO << 24)

    def _answer(self, number: int, response: int) -> None:
        with suppress(FileNotFoundError):
            os.write(self.fd, _ANSWER.pack(number, response))

    def _change(self, how: int, file: int) -> None:
        sc.fanotify_mark(self.fd, how, _OPEN_PERM | _PRE_ACCESS, file)


def is_possible(folder: Path) -> bool:
    """Whether files of the filesystem at ``folder`` can be marked; tried out, with a file of no name."""
    try:
        group = Group()
    except OSError:
        return False
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            group.mark(file.fileno())
    except OSError:
        return False
    finally:
        group.close()
    return True


def _events(data: bytes) -> Iterator[Event]:
    place = 0
    while place < len(data):
        length, _, _, header, mask, fd, thread = _EVENT.unpack_from(data, place)
        offset, count = _range(data[place + header : place + length])
        if fd >= 0:  # one that the kernel could not open is refused by itself
            yield Event(fd, thread, bool(mask & _PRE_ACCESS), offset, count)
        place += length


def _range(records: bytes) -> tuple[int, int]:
    place = 0
    while place < len(records):
        kind, _, length = _INFO.unpack_from(records, place)
        if kind == _WITH_RANGE:
            return _RANGE.unpack_from(records, place)[4:]
        place += length
    return 0, 0
