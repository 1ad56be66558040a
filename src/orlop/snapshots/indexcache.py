"""What the index files of a repository say, kept on this host: they are read once, and not by every process again.

Index files never change (each is named for its content), so what was made of them stays right. Which of them count, the
store's listing says each time: if one that is in here has gone, all are read anew. A cache that is damaged, or of
another repository, is none; it may be deleted at any time.

The file is a row of parts, each with its length before it and sealed as everything in a repository is: the names of the
index files and packs, then sorted pieces of the tables. A crash may leave half of it, or none.
"""

import contextlib
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from orlop.errors import Corrupt
from orlop.snapshots.packs import Kind
from orlop.snapshots.reading import Reading
from orlop.snapshots.seal import Seal

_FORMAT: Final = 1
_LEAST: Final = 10_000
"""Blobs, and ..."""
_SHARE: Final = 8
"""... the part of all blobs that must be new before the cache is written again: reading them costs as much."""
_ABANDONED: Final = 600
"""Seconds without a byte after which nobody writes a cache any more."""
_LENGTH: Final = struct.Struct("<Q")


class _Piece(msgspec.Struct):
    """A part of a table: bytes of ids in order, and then their values."""

    marked: bool
    kind: Kind
    ids: int


class _Head(msgspec.Struct):
    """The first part: the index files, those that mark nothing, the packs, and which parts follow."""

    format: int
    names: list[str]
    plain: list[str]
    live: bytes
    marked: bytes
    pieces: list[_Piece]


class IndexCache:
    """The cache ``file`` of one repository, which has the seal; it need not be there."""

    def __init__(self, file: Path, seal: Seal) -> None:
        self._file, self._seal = file, seal

    def load(self) -> Reading | None:
        """What was kept last; None if there is none that makes sense."""
        try:
            with self._file.open("rb") as file:
                return _read(self._parts(file))
        except (OSError, Corrupt, msgspec.MsgspecError, StopIteration, struct.error, ValueError):
            return None

    def keep(self, read: Reading) -> None:
        """Keep it if there is much that is not kept yet. A disk that takes nothing is no reason to fail."""
        if read.blobs - read.cached < max(_LEAST, read.cached // _SHARE):
            return
        new = self._file.with_suffix(f".{os.getpid()}.new")
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._sweep()
            try:
                self._write(new, read)
            finally:
                new.unlink(missing_ok=True)

    def _write(self, new: Path, read: Reading) -> None:
        with open(new, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            for part in _written(read):
                sealed = self._seal.seal(part)
                file.write(_LENGTH.pack(len(sealed)) + sealed)
        new.replace(self._file)
        read.cached = read.blobs

    def _sweep(self) -> None:
        """Delete what killed processes have left."""
        for left in self._file.parent.glob(f"{self._file.name}.*.new"):
            if time.time() - left.stat().st_mtime > _ABANDONED:
                left.unlink()

    def _parts(self, file: BinaryIO) -> Iterator[bytes]:
        while length := file.read(_LENGTH.size):
            yield self._seal.open(file.read(_LENGTH.unpack(length)[0]))


def _written(read: Reading) -> Iterator[bytes]:
    """The parts; a table and its pieces are one copy, a piece at a time is another."""
    runs = [(False, *run) for run in read.live.runs()] + [(True, *run) for run in read.marked.runs()]
    pieces = [_Piece(is_marked, kind, len(ids)) for is_marked, kind, ids, _ in runs]
    packs = b"".join(read.live.ids()), b"".join(read.marked.ids())
    yield msgspec.msgpack.encode(_Head(_FORMAT, sorted(read.names), sorted(read.plain), *packs, pieces))
    for _, _, ids, values in runs:
        yield ids + values


def _read(parts: Iterator[bytes]) -> Reading:
    head, read = msgspec.msgpack.decode(next(parts), type=_Head), Reading()
    if head.format != _FORMAT:
        raise Corrupt(f"a cache of format {head.format}")
    read.names, read.plain = set(head.names), set(head.plain)
    read.live.know(head.live)
    read.marked.know(head.marked)
    for piece in head.pieces:
        part, index = next(parts), read.marked if piece.marked else read.live
        index.take(piece.kind, part[: piece.ids], part[piece.ids :])
    if next(parts, None) is not None:
        raise Corrupt("more than there should be")
    read.cached = read.blobs
    return read
