"""Tells a save what has been written to a file since it was saved last, by where its blocks are."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from orlop.errors import Corrupt
from orlop.kernel import reflink
from orlop.snapshots import times
from orlop.snapshots.changes import Changed
from orlop.snapshots.nodes import Node
from orlop.volumes.sources import Source, Was


def by_blocks(source: Source, parent: str | None) -> Changed:
    """Compares with what ``source`` has kept of the snapshot ``parent``; where that is nothing, the file is read."""

    def changed(path: bytes, fd: int, node: Node) -> Sequence[tuple[int, int]] | None:
        try:
            was = Was(parent or "", node.inode, times.read(node.ctime))
            with _opened(source.before(os.fsdecode(path), was)) as before:
                return None if before is None else reflink.changed(before, fd)
        except (OSError, Corrupt):
            return None  # it is read, then

    return changed


@contextmanager
def _opened(before: Path | None) -> Iterator[int | None]:
    if before is None:
        yield None
        return
    fd = os.open(before, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        yield fd
    finally:
        os.close(fd)
