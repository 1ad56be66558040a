"""Where the content of large files that are not here yet is written first: each has a twin, which has its room.

Blocks that nobody has written to look like a hole to whoever asks for holes (lseek(2)), and no event tells that he
asks. So a large placeholder shares a few megabytes of zeros, again and again: those look like data. Its room is kept by
the twin, in a folder of the filesystem that containers never see. A part is written there, becomes a part of the file
by sharing (FICLONERANGE), and is taken from the twin: then it is the file's alone.

    lazy/HANDLE    below the root of the filesystem: the twin of the file with this handle (`orlop.kernel.handles`)
"""

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from orlop.kernel import handles, reflink
from orlop.kernel import syscalls as sc
from orlop.snapshots import target

_FOLDER: Final = "lazy"
_BLOCK: Final = 4096
_ZEROS: Final = 16 << 20
_LEAST_PART: Final = 512 << 10
"""Bytes of all parts but the last: the chunks of a large file are no shorter."""
_EDGES: Final = 2 * _BLOCK
"""What a part needs besides: blocks that it shares with its neighbours are written where they are."""


class Twins:
    """The twins in one filesystem, of which ``root`` is the root folder, open. Threads may share it."""

    def __init__(self, root: int):
        """Nothing is made yet."""
        self._root, self._zeros = root, -1

    def close(self) -> None:
        """No more are made."""
        if self._zeros >= 0:
            os.close(self._zeros)
            self._zeros = -1

    def make(self, file: int, size: int, data: Sequence[tuple[int, int]]) -> None:
        """Give the empty open file ``size`` bytes that look like data in the ranges ``data``, and their room to a twin.

        The rest is a hole. The ranges (start, end) are whole blocks, but for the end of the file. Raises `OSError`
        (ENOSPC), and leaves no twin then.
        """
        with suppress(FileExistsError):
            os.mkdir(_FOLDER, 0o700, dir_fd=self._root)
        handle = handles.of(file)
        twin = os.open(_name(handle), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self._root)
        try:
            for start, end in data:
                os.posix_fallocate(twin, start, _up(end) - start)
                edges = _edges(size, start)
                os.posix_fallocate(twin, edges, _edges(size, end) + _EDGES - edges)
                self._look_like_data(file, start, end)
            os.ftruncate(file, size)
        except OSError:
            self.drop(handle)
            raise
        finally:
            os.close(twin)

    def put(self, file: int, handle: bytes, size: int, start: int, content: Iterable[bytes]) -> None:
        """Write ``content``, a part of ``size`` bytes in all, into the open file from ``start`` on.

        Without a twin, as older releases made none, it is written where it belongs; also if the room was needed twice,
        because whoever wrote it first was killed.
        """
        pieces = list(content)
        with self._opened(handle) as twin:
            try:
                if twin is not None:
                    _share(twin, file, size, start, pieces)
                    return
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
            _write(file, start, pieces)

    def drop(self, handle: bytes) -> None:
        """The file with that handle is complete, or gone; no twin is fine."""
        with suppress(FileNotFoundError):
            os.unlink(_name(handle), dir_fd=self._root)

    def clear(self) -> None:
        """All twins go; none is fine."""
        with suppress(FileNotFoundError):
            folder = os.open(_FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._root)
            with sc.closing(folder):
                for name in os.listdir(folder):  # noqa: PTH208 - by its number
                    os.unlink(name, dir_fd=folder)
            os.rmdir(_FOLDER, dir_fd=self._root)

    def _look_like_data(self, file: int, start: int, end: int) -> None:
        if self._zeros < 0:
            self._zeros = os.open(_FOLDER, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=self._root)
            _write(self._zeros, 0, [bytes(1 << 20)] * (_ZEROS >> 20))
        for place in range(start, end, _ZEROS):
            reflink.clone_range(self._zeros, 0, min(_ZEROS, _up(end - place)), file, place)

    @contextmanager
    def _opened(self, handle: bytes) -> Iterator[int | None]:
        try:
            twin = os.open(_name(handle), os.O_RDWR | os.O_CLOEXEC, dir_fd=self._root)
        except FileNotFoundError:
            yield None
            return
        with sc.closing(twin):
            yield twin


def _share(twin: int, file: int, size: int, start: int, pieces: Iterable[bytes]) -> None:
    end = _write(twin, start, pieces)
    first = min(_up(start), end)
    last = max(end // _BLOCK * _BLOCK, first)
    edges = [(start, os.pread(twin, first - start, start)), (last, os.pread(twin, end - last, last))]
    if first < last:
        reflink.clone_range(twin, first, last - first, file, first)
    sc.punch_hole(twin, start, end - start)
    sc.punch_hole(twin, _edges(size, start), _EDGES)
    for place, edge in edges:
        _write(file, place, [edge])


def _write(file: int, start: int, pieces: Iterable[bytes]) -> int:
    """Where the last piece ends."""
    for piece in pieces:
        target.write(file, memoryview(piece), start)
        start += len(piece)
    return start


def _name(handle: bytes) -> str:
    return f"{_FOLDER}/{handle.hex()}"


def _edges(size: int, start: int) -> int:
    """Where in the twin of a file of ``size`` bytes the room for the edges is, of the part at ``start``."""
    return _up(size) + -(-start // _LEAST_PART) * _EDGES


def _up(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
