"""What the index files of a repository say, kept on this host: they are read once, and not by every process again.

Index files never change (each is named for its content), so what was made of them stays right. Which of them count, the
store's listing says each time: if one that is in here has gone, all are read anew. A cache that is damaged, or of
another repository, is none; it may be deleted at any time.

The parts of the file are the names of the index files and packs, then sorted pieces of the tables.
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from orlop.errors import Corrupt
from orlop.snapshots.hostfile import HostFile
from orlop.snapshots.packs import Kind
from orlop.snapshots.reading import Reading

_FORMAT: Final = 1
_LEAST: Final = 10_000
"""Blobs, and ..."""
_SHARE: Final = 8
"""... the part of all blobs that must be new before the cache is written again: reading them costs as much."""


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
    """The cache of one repository, in ``file``."""

    def __init__(self, file: HostFile) -> None:
        self._file = file

    def load(self) -> Reading | None:
        """What was kept last; None if there is none that makes sense."""
        try:
            return _read(self._file.parts())
        except (Corrupt, msgspec.MsgspecError, StopIteration, ValueError):
            return None

    def keep(self, read: Reading) -> None:
        """Keep it if there is much that is not kept yet."""
        if read.blobs - read.cached < max(_LEAST, read.cached // _SHARE):
            return
        if self._file.replace(_written(read)):
            read.cached = read.blobs


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
