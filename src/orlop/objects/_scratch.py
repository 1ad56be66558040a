"""A file that nobody sees until it is whole: without a name where the filesystem can, else hidden and locked.

A hidden file belongs to whoever holds a lock on it. The kernel (or the server of a shared filesystem) drops the lock
of a process that was killed, so `sweep` deletes what nobody holds, and never what another is still writing.
"""

import errno
import fcntl
import os
import secrets
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_LOCK = struct.Struct("hhqqi4x")
_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR)


class Scratch:
    """A new file in the folder that ``fd`` is open for; `create` or `replace` gives it its place."""

    def __init__(self, fd: int) -> None:
        self._folder = fd
        self._name: str | None = None
        self.fd = _anonymous(fd) or self._named()

    def create(self, name: str, folder: int) -> None:
        """Give it a name; raises `FileExistsError` if that is taken, by whomever."""
        # With a dir_fd, for without one Python calls link(2), which would link the symbolic link in /proc.
        os.link(self._source, name, src_dir_fd=self._folder, dst_dir_fd=folder, follow_symlinks=self._name is None)

    def replace(self, name: str, folder: int, step: Callable[[str], object]) -> None:
        """Give it a name, in place of what has it; ``step`` is told when it has a hidden one."""
        if self._name is None:
            hidden = _hidden_name()
            self.create(hidden, self._folder)
            self._name = hidden
        step("hidden")
        os.rename(self._name, name, src_dir_fd=self._folder, dst_dir_fd=folder)
        self._name = None

    def close(self) -> None:
        """Forget it, unless it has got its name."""
        if self._name is not None:
            with suppress(OSError):
                os.unlink(self._name, dir_fd=self._folder)
        os.close(self.fd)

    @property
    def _source(self) -> str:
        return self._name or f"/proc/self/fd/{self.fd}"

    def _named(self) -> int:
        while True:
            name = _hidden_name()
            fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._folder)
            # One who swept between the two lines has deleted it, and it would vanish with us.
            if lock(fd, wait=0) and os.fstat(fd).st_nlink:
                self._name = name
                return fd
            os.close(fd)


def sweep(fd: int) -> None:
    """Delete the hidden files that writers left in a folder when they were killed."""
    with os.scandir(fd) as entries:
        left = [entry.name for entry in entries if entry.name.startswith(_PREFIX)]
    for name in left:
        with suppress(FileNotFoundError):
            file = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
            try:
                if lock(file, wait=0):
                    os.unlink(name, dir_fd=fd)
            finally:
                os.close(file)


@contextmanager
def locked(path: str, folder: int, place: int, wait: float) -> Iterator[bool]:
    """Byte ``place`` of the lock file is ours meanwhile, if it could be had in ``wait`` seconds."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        yield lock(fd, wait, place)
    finally:
        os.close(fd)


def lock(fd: int, wait: float, place: int = 0) -> bool:
    """Whether the byte is ours now. It is the open file's (``F_OFD_SETLK``), so threads exclude each other too."""
    end, pause = time.monotonic() + wait, 0.0005
    request = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0)
    while True:
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, request)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
        else:
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


_PREFIX = ".new-"


def _hidden_name() -> str:
    return f"{_PREFIX}{secrets.token_hex(12)}"


def _anonymous(folder: int) -> int | None:
    try:
        fd = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=folder)
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
        return None
    # `replace` will give it a hidden name for a moment.
    lock(fd, wait=0)
    return fd
