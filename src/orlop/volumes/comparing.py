"""Tells a save what has been written to a file since it was saved last, by where its blocks are."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from orlop.errors import Corrupt
from orlop.kernel import reflink
from orlop.snapshots import times
from orlop.snapshots.changes import Changed
from orlop.snapshots.nodes import Node
from orlop.volumes.sources import Source


def by_blocks(source: Source) -> Changed:
    """Compares with what ``source`` has kept; where it has kept nothing, the file is read."""

    def changed(path: bytes, fd: int, node: Node) -> Sequence[tuple[int, int]] | None:
        try:
            with _opened_before(source, os.fsdecode(path), node) as before:
                return None if before is None else reflink.changed(before, fd)
        except (OSError, Corrupt):
            return None  # it is read, then

    return changed


@contextmanager
def _opened_before(source: Source, path: str, node: Node) -> Iterator[int | None]:
    before = source.before(path, node.inode, times.read(node.ctime))
    if before is None:
        yield None
        return
    fd = os.open(before, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        yield fd
    finally:
        os.close(fd)
