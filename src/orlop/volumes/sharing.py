"""A cloned image gets blocks of its own, while it is in use and nobody waits for that.

An image and its clone share their blocks until one of them is written to, and then the write needs a new block. What
was reserved for both would not be there on a full disk. So where either was promised room, a process copies what is
shared, a piece at a time: the first is started with the clone, and one that a crash ended is followed by another when
one of the volumes is attached next. A file beside each image remembers that until all is done.

    python -m orlop.volumes.sharing IMAGE...
"""

import errno
import fcntl
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from orlop.kernel import reflink
from orlop.kernel import syscalls as sc
from orlop.kernel.processes import Child, reap
from orlop.volumes import image

_PIECE = 8 << 20
"""Bytes for which the users of the volume have to wait at once."""


def is_possible(source: Path, fs: str, size: int, *, is_thin: bool) -> bool:
    """Whether ``source`` can be shared by an image with the filesystem ``fs`` and ``size`` bytes.

    Unless both are thin there has to be room for all of the new one, which is needed soon.
    """
    if image.kind(source) != fs or size < source.stat().st_size:
        return False
    told = os.statvfs(source.parent)
    if not is_thin and told.f_bavail * told.f_frsize < size:
        return False
    with sc.closing(os.open(source.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as folder:
        return reflink.is_possible(folder)


def remember(file: Path) -> None:
    """The image ``file`` has to get blocks of its own."""
    _mark(file).touch()


def begin(*files: Path) -> None:
    """Start a process that gives images blocks of their own, one after the other, where that is not done yet."""
    if any(_mark(file).exists() for file in files):
        # With absolute paths: the process works in no folder that could be needed elsewhere.
        command = [sys.executable, "-P", "-m", "orlop.volumes.sharing", *(str(file.absolute()) for file in files)]
        null = subprocess.DEVNULL
        reap(Child(command, stdin=null, stdout=null, stderr=null, cwd="/", start_new_session=True))


def attach(file: Path) -> None:
    """The image ``file``, whose volume was promised room, is going to be used."""
    if _mark(file).exists():
        begin(file)
        return
    # What was shared once goes through the host's page cache, until XFS is asked to look whether anything still is.
    with suppress(OSError), sc.closing(os.open(file, os.O_RDWR | os.O_CLOEXEC)) as fd:
        sc.unshare_blocks(fd, 0, os.fstat(fd).st_size)


def end(file: Path) -> None:
    """Give the image ``file`` blocks of its own; returns at once where another process does that.

    Raises `OSError` if there is no room, and the next one tries again.
    """
    try:
        mark = os.open(_mark(file), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    with sc.closing(mark), sc.closing(os.open(file, os.O_RDWR | os.O_CLOEXEC)) as fd:
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        _copy(fd)
        sc.sync_filesystem(fd)
        _mark(file).unlink(missing_ok=True)


def _copy(fd: int) -> None:
    size = os.fstat(fd).st_size
    for start in range(0, size, _PIECE):
        if not os.fstat(fd).st_nlink:
            return  # the volume was removed
        try:
            # Not beyond the end: the file would grow.
            sc.unshare_blocks(fd, start, min(_PIECE, size - start))
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                return  # btrfs: nothing that was written once is reserved there
            raise


def _mark(file: Path) -> Path:
    return file.with_suffix(".shared")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        end(Path(name))
