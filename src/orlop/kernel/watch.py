"""Which names of a filesystem have changed since one began to look, told by the kernel (fanotify(7)).

What is written through a shared mapping is not told: `orlop.kernel.pause` knows who could have done so.
"""

import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from orlop.kernel import handles
from orlop.kernel import syscalls as sc

_CLOEXEC, _NONBLOCK, _UNLIMITED_QUEUE, _REPORT_DFID_NAME = 0x1, 0x2, 0x10, 0xC00
_MARK_ADD, _MARK_FILESYSTEM = 0x1, 0x100
_MODIFY, _ATTRIB, _MOVED, _CREATE, _DELETE, _ONDIR = 0x2, 0x4, 0xC0, 0x100, 0x200, 0x40000000
_OVERFLOW = 0x4000
_WITH_NAME = 2
_EVENT, _INFO, _HANDLE = struct.Struct("=IBBHQii"), struct.Struct("=BBHq"), struct.Struct("=Ii")


class Overflow(Exception):
    """The kernel has dropped events: everything may have changed."""


class Watch:
    """Looks at the whole filesystem of ``root``, from now until it is closed."""

    def __init__(self, root: Path):
        """``root`` is the root folder of the filesystem; raises `OSError` where it cannot be watched."""
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        # What this path shows: the name of every file below begins with it.
        self._prefix = os.readlink(f"/proc/self/fd/{self._root}").rstrip("/")  # noqa: PTH115
        flags = _CLOEXEC | _NONBLOCK | _UNLIMITED_QUEUE | _REPORT_DFID_NAME
        try:
            self._fd = sc.fanotify_init(flags, os.O_RDONLY)
        except OSError:
            os.close(self._root)
            raise
        try:
            mask = _MODIFY | _ATTRIB | _MOVED | _CREATE | _DELETE | _ONDIR
            sc.fanotify_mark(self._fd, _MARK_ADD | _MARK_FILESYSTEM, mask, self._root)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Look no more."""
        os.close(self._fd)
        os.close(self._root)

    def changed(self) -> set[str]:
        """The paths, from the root, that others have changed since this was asked last; ``.`` is the root.

        A path may be gone by now. Raises `Overflow`.
        """
        found: set[tuple[bytes, bytes]] = set()
        for data in self._read():
            found.update(_names(data))
        folders = {handle: self._folder(handle) for handle in {handle for handle, _ in found}}
        return {
            os.path.normpath(os.path.join(folder, os.fsdecode(name)))  # noqa: PTH118
            for handle, name in found
            if (folder := folders[handle]) is not None
        }

    def _read(self) -> Iterator[bytes]:
        while True:
            try:
                yield os.read(self._fd, 1 << 18)
            except BlockingIOError:
                return

    def _folder(self, handle: bytes) -> str | None:
        """Where the folder of this handle is now; None if it has been deleted."""
        try:
            fd = handles.opened(self._root, handle, os.O_PATH)
        except OSError as error:
            if error.errno in (errno.ESTALE, errno.ENOENT):
                return None
            raise
        with sc.closing(fd):
            path = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115
        return None if path.endswith(" (deleted)") else path.removeprefix(self._prefix).lstrip("/")


def _names(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The handles of folders, and the names in them, of the events of other processes."""
    own, place = os.getpid(), 0
    while place < len(data):
        length, _, _, header, mask, _, pid = _EVENT.unpack_from(data, place)
        if mask & _OVERFLOW:
            raise Overflow
        if pid != own:
            yield from _records(data[place + header : place + length])
        place += length


def _records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 0
    while place < len(data):
        kind, _, length, _ = _INFO.unpack_from(data, place)
        if kind == _WITH_NAME:
            start = place + _INFO.size
            end = start + _HANDLE.size + _HANDLE.unpack_from(data, start)[0]
            yield data[start:end], data[end : place + length].split(b"\0", 1)[0]
        place += length
