"""Locks between threads and processes of this host, one per name, all in one file.

Each name locks one byte of the file, at an offset made from its hash; the lock belongs to an open file description
(fcntl(2), ``F_OFD_SETLK``), so it also excludes threads of one process, and the kernel drops it when its holder is
killed. Two names that hash alike merely wait for each other.
"""

import errno
import fcntl
import hashlib
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orlop.errors import Busy

_FLOCK = struct.Struct("hhqqi4x")


class Locks:
    """The locks that ``path`` holds; the file itself stays empty."""

    def __init__(self, path: Path, patience: float = 100.0):
        """``patience``: seconds that a caller waits before it hears `Busy` (an engine gives up after 120)."""
        self._path = path
        self._patience = patience

    @contextmanager
    def hold(self, name: str, patience: float | None = None) -> Iterator[None]:
        """Nobody else holds ``name`` meanwhile. Raises `Busy` after ``patience`` seconds."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._wait(fd, name, time.monotonic() + (self._patience if patience is None else patience))
            yield
        finally:
            os.close(fd)

    def is_held(self, name: str) -> bool:
        """Whether somebody holds ``name`` now; asking is in nobody's way."""
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _request(name))
        finally:
            os.close(fd)
        return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)

    def _wait(self, fd: int, name: str, end: float) -> None:
        pause = 0.0005
        while not _try(fd, name):
            if time.monotonic() >= end:
                raise Busy(f"another operation on {name!r} has not ended; try again later")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)


def _request(name: str) -> bytes:
    offset = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) >> 2
    return _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0)


def _try(fd: int, name: str) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _request(name))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True
