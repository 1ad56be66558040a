"""Tells a save what has been written to a file since a snapshot was made of it, by where its blocks are."""

import os
from collections.abc import Sequence

from orlop.errors import Corrupt
from orlop.snapshots import times
from orlop.snapshots.changes import Changed
from orlop.snapshots.nodes import Node
from orlop.volumes.sources import Source, Was


def by_blocks(source: Source, parent: str | None) -> Changed:
    """Asks what ``source`` has kept of the snapshot ``parent``; where that is nothing, the file is read."""

    def changed(path: bytes, fd: int, node: Node) -> Sequence[tuple[int, int]] | None:
        try:
            return source.changed(os.fsdecode(path), fd, Was(parent or "", node.inode, times.read(node.ctime)))
        except (OSError, Corrupt):
            return None  # it is read, then

    return changed
