"""Brings a whole filesystem to a stop: for a moment, or for good."""

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orlop.kernel import syscalls as sc
from orlop.kernel.guard import guarded

_FIFREEZE, _FITHAW = 0xC0045877, 0xC0045878
_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2


def sync(folder: Path) -> None:
    """Write back all of the filesystem at ``folder`` (syncfs(2)); raises `OSError` if anything was lost."""
    with sc.closing(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
        sc.sync_filesystem(fd)


@contextmanager
def frozen(folder: Path) -> Iterator[None]:
    """Nothing is written to the filesystem at ``folder`` meanwhile; writers wait. Never write there inside.

    What is dirty is written back before, so that the wait is short.
    """
    sync(folder)
    with sc.closing(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
        # The path may mean something in this process only, and nothing when it is dead.
        with guarded(["fsfreeze", "--unfreeze", f"/proc/self/fd/{fd}"], [fd]):
            fcntl.ioctl(fd, _FIFREEZE, 0)
            try:
                yield
            finally:
                fcntl.ioctl(fd, _FITHAW, 0)


def shut_down(folder: Path) -> None:
    """Let the filesystem at ``folder`` (ext4, XFS) refuse everything from now on: writers get EIO at once.

    What was not written back is lost, as in a power cut; it can be unmounted and mounted again. Raises `OSError`
    (ENOTTY) where the filesystem has no such thing.
    """
    with sc.closing(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
        fcntl.ioctl(fd, _SHUTDOWN, struct.pack("=I", _NO_LOG_FLUSH))
