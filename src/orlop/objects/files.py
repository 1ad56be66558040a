"""Objects as the files of a folder: whole after any kill, and one winner among all who write conditionally.

An object is a plain file at its key's place; any other program may read it. Beside the objects there is one hidden
folder, ``.orlop``, with the lock file and with what is being written.

**Order of a write.** The bytes go to a file without a name, which is synced; under the lock of the key, `only_if` is
compared, the file gets its name in one step, and the folder is synced. A kill at any moment leaves the object
from before or the new one. The lock is held for the last part only, never while data comes.

**Version.** It has to be cheap (a stat), it must not need anything that a shared filesystem lacks (extended attributes
on NFS 3), and it has to change although the kernel's clock stands still for 4 ms and inode numbers are used again at
once: two replacements within a tick can give the same inode, size, mtime and ctime. So the mtime is ours: its
seconds are the time, its nanoseconds are drawn at random. A version is inode, size and mtime; to be mistaken
takes the same second, the same inode, the same size, and a chance of one in 10^9. A foreign program that edits or
replaces the file changes the version too. Where times are kept too coarsely for that, conditional writes are refused.
"""

import hashlib
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from orlop.errors import Conflict, Invalid, NotFound, Unavailable
from orlop.objects import _folder
from orlop.objects._scratch import Scratch, locked, sweep
from orlop.objects.store import ABSENT, ObjectInfo, check_key, is_key

_OURS: Final = ".orlop"
_PIECE: Final = 1 << 20
_SECOND: Final = 10**9
_COARSEST: Final = 1000
"""Nanoseconds: what a filesystem may round times to (SMB does to 100), so that 10^6 random values are left."""
_LOOKS: Final = 3
_MOMENT: Final = 0.0005
_PATIENCE: Final = 60.0
"""Seconds to wait for a lock, which is held for a rename and a sync: more than a slow disk needs for both."""


class FileStore:
    """The objects in ``folder``, which must be there: a folder that is missing may be a disk that is not mounted.

    Several hosts may share it if its filesystem has locks and renames that all of them see (NFS 4, GlusterFS, CephFS).
    ``step`` is told of every place between two changes, for tests that kill there.
    """

    def __init__(self, folder: Path, step: Callable[[str], object] = str) -> None:
        self._folder = folder
        self._step = step
        self._swept = False

    def __repr__(self) -> str:
        return f"FileStore('{self._folder}')"

    def stat(self, key: str) -> ObjectInfo:
        """See `ObjectStore`."""
        with self._open(key) as fd:
            return _info(key, os.fstat(fd))

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See `ObjectStore`. An open file is of one version: nobody changes it, it is replaced."""
        with self._open(key) as fd:
            while end is None or start < end:
                with _folder.translated(self._folder):
                    piece = os.pread(fd, _PIECE if end is None else min(_PIECE, end - start), start)
                if not piece:
                    return
                yield piece
                start += len(piece)

    def write(self, key: str, data: Iterable[bytes], *, only_if: str | None = None) -> ObjectInfo:
        """See `ObjectStore`."""
        folders = check_key(key).split("/")[:-1]
        _folder.make(self._folder, [_OURS])
        with _folder.opened(self._folder, [_OURS]) as ours:
            with _folder.translated(self._folder):
                self._sweep(ours)
                new = Scratch(ours)
            try:
                stamp = self._fill(new.fd, data)
                self._step("filled")
                _folder.make(self._folder, folders)
                with self._locked(key, ours), _folder.opened(self._folder, folders) as folder:
                    return self._publish(new, stamp, key, folder, only_if)
            finally:
                new.close()

    def delete(self, key: str) -> None:
        """See `ObjectStore`. Its folders stay: another may be about to write there."""
        *folders, name = check_key(key).split("/")
        with suppress(NotFound), self._open(key), _folder.opened(self._folder, [_OURS]) as ours:
            with self._locked(key, ours), _folder.opened(self._folder, folders) as folder:
                with _folder.translated(self._folder):
                    with suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=folder)
                    self._step("unlinked")
                    os.fsync(folder)

    def walk(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `ObjectStore`. In memory are the names of one folder, and of those it is in."""
        above = prefix.rpartition("/")[0]
        if above and not is_key(above):
            return
        with suppress(NotFound), _folder.opened(self._folder, above.split("/") if above else []) as fd:
            yield from self._walk(fd, f"{above}/" if above else "", prefix)

    def _walk(self, fd: int, above: str, prefix: str) -> Iterator[ObjectInfo]:
        with _folder.translated(self._folder):
            names = _folder.names(fd)
        for name in names:
            key = above + name
            if not key.startswith(prefix) or not is_key(key.removesuffix("/")):
                continue
            with suppress(NotFound):
                if name.endswith("/"):
                    with _folder.opened(self._folder, key.split("/")[:-1]) as inner:
                        yield from self._walk(inner, key, prefix)
                else:
                    yield self.stat(key)

    @contextmanager
    def _open(self, key: str) -> Iterator[int]:
        *folders, name = check_key(key).split("/")
        try:
            with _folder.opened(self._folder, folders) as folder:
                fd = _open_object(self._folder, name, folder)
        except NotFound:
            raise NotFound(f"no object {key!r}") from None
        try:
            yield fd
        finally:
            os.close(fd)

    def _sweep(self, ours: int) -> None:
        if not self._swept:
            sweep(ours)
            self._swept = True

    def _fill(self, fd: int, data: Iterable[bytes]) -> int:
        """Write and sync; the mtime that it was to have."""
        for piece in data:
            with _folder.translated(self._folder):
                left = memoryview(piece)
                while left:
                    left = left[os.write(fd, left) :]
        now = time.time_ns()
        stamp = now - now % _SECOND + secrets.randbelow(_SECOND)
        with _folder.translated(self._folder):
            os.utime(fd, ns=(now, stamp))
            os.fsync(fd)
        return stamp

    @contextmanager
    def _locked(self, key: str, ours: int) -> Iterator[None]:
        place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) >> 2
        with ExitStack() as stack:
            with _folder.translated(self._folder):
                got = stack.enter_context(locked("lock", ours, place, _PATIENCE))
            if not got:
                raise Unavailable(f"another write of {key!r} in '{self._folder}' has not ended; try again later")
            yield

    def _publish(self, new: Scratch, stamp: int, key: str, folder: int, only_if: str | None) -> ObjectInfo:
        name = key.rpartition("/")[2]
        if only_if:
            self._compare(key, folder, only_if)
            self._refuse_coarse_times(new.fd, stamp)
        with _folder.translated(self._folder):
            if only_if or not _created(new, name, folder):
                if only_if == ABSENT:
                    raise Conflict(f"object {key!r} is there already")
                self._replace(new, name, folder)
            self._step("named")
            os.fsync(folder)
            return _info(key, os.fstat(new.fd))

    def _replace(self, new: Scratch, name: str, folder: int) -> None:
        try:
            new.replace(name, folder, self._step)
        except IsADirectoryError:
            raise Invalid(f"{name!r} is a folder of other objects") from None

    def _compare(self, key: str, folder: int, only_if: str) -> None:
        with suppress(NotFound):
            # Opened, for on a shared filesystem a stat may be answered from what this host remembers.
            fd = _open_object(self._folder, key.rpartition("/")[2], folder)
            try:
                if _info(key, os.fstat(fd)).version == only_if:
                    return
            finally:
                os.close(fd)
        raise Conflict(f"object {key!r} has changed")

    def _refuse_coarse_times(self, fd: int, stamp: int) -> None:
        if abs(os.fstat(fd).st_mtime_ns - stamp) > _COARSEST:
            raise Unavailable(f"'{self._folder}' keeps file times too coarsely to tell versions apart")


def _open_object(store: Path, name: str, folder: int) -> int:
    """Raises `NotFound` for what is no plain file; a pipe would wait for a writer otherwise."""
    # On FUSE, an open that meets the rename of another finds nothing for a moment, though there always is something.
    for look in range(_LOOKS):
        with suppress(NotFound):
            return _plain(store, name, folder)
        time.sleep(_MOMENT * look)
    return _plain(store, name, folder)


def _plain(store: Path, name: str, folder: int) -> int:
    fd = _folder.enter(store, name, folder, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotFound(f"{name!r} in '{store}' is no file")
    return fd


def _created(new: Scratch, name: str, folder: int) -> bool:
    try:
        new.create(name, folder)
    except FileExistsError:
        return False
    return True


def _info(key: str, found: os.stat_result) -> ObjectInfo:
    version = f"{found.st_ino:x}-{found.st_size:x}-{found.st_mtime_ns:x}"
    return ObjectInfo(key, found.st_size, version, found.st_mtime)
