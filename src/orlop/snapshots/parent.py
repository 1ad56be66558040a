"""What the parent snapshot has of a folder that is saved anew, and what of that is still so.

Files are as they were if the kernel says so (`orlop.snapshots.nodes.is_unchanged`), or somebody else who knows. A few
small ones are read again all the same, to find out whether that is true.
"""

import os
import random
from collections.abc import Callable
from typing import Final

from orlop.errors import Corrupt, NotFound
from orlop.snapshots import names, nodes, times
from orlop.snapshots.chunks import MIN
from orlop.snapshots.growing import Folder
from orlop.snapshots.nodes import Node, is_unchanged
from orlop.snapshots.treereader import TreeReader
from orlop.snapshots.writer import Writer

_TICK: Final = 20_000_000
"""Nanoseconds: twice what the coarsest clock of a kernel takes from one time stamp to the next."""
_FOREVER: Final = 1 << 64
_AUDIT: Final = 1 / 2000
"""The share of unchanged files that are read again all the same."""

Same = Callable[[bytes, os.stat_result, Node], bool]
"""Who knows that a file, which looks different from its node in the parent, has the content that the node says.

Asked with the file's path in the folder and what it looks like.
"""


class Parent:
    """The folder ``name`` in the snapshot ``snapshot``; ``top`` is None if there is no such thing."""

    def __init__(self, writer: Writer, snapshot: str | None, name: str, same: Same | None, *, clones: bool) -> None:
        self.snapshot, self._writer, self._same = snapshot, writer, same
        self._trees = TreeReader(writer.repository)
        self.top: Node | None = None
        self.is_whole = False  # everything that it refers to is still stored, and need not be asked for
        self._trusted = -_TICK
        if snapshot is not None:
            self._look(snapshot, os.fsencode(name), clones=clones)

    def entries(self, folder: Folder) -> dict[str, Node]:
        """What the folder had, by name; the folder learns how much that is, and whether all of it is still stored."""
        if folder.old is None or folder.old.subtree is None:
            return {}
        try:
            old = {names.listed(node.name): node for node in self._trees.nodes(folder.old.subtree)}
        except Corrupt:
            # The parent is damaged here: everything below is read again, which is what repairs it.
            folder.old = None
            return {}
        folder.old_count = len(old)
        # Asked for all at once: one by one it would take as long as the look at the files.
        folder.is_there = self.is_whole or self._writer.has_all(
            "data", [blob for node in old.values() for blob in node.content or ()]
        )
        return old

    def stays(self, folder: Folder, old: Node, status: os.stat_result) -> bool:
        """Whether ``old`` is right for what is no folder, and need not be looked at more closely."""
        if status.st_ctime_ns >= self._trusted or not is_unchanged(old, status) or old.type == "dir":
            return False
        if not folder.is_there and not self._writer.has_all("data", old.content or ()):
            return False
        return old.type != "file" or old.size > MIN or random.random() >= _AUDIT  # noqa: S311 - no secret

    def is_as_it_was(self, folder: Folder, status: os.stat_result) -> bool:
        """Whether all that the parent says of the folder itself is so, whatever may be in it now."""
        old = folder.old
        return old is not None and status.st_ctime_ns < self._trusted and is_unchanged(old, status)

    def is_same(self, path: bytes, status: os.stat_result, old: Node) -> bool:
        """Whether somebody knows that the content is that of ``old``, although the kernel cannot."""
        if self._same is None or old.type != "file" or old.size != status.st_size:
            return False
        if status.st_ctime_ns < self._trusted and is_unchanged(old, status):
            return False  # the kernel says it is, and it is read to find out whether that is true
        if not self._same(path, status, old):
            return False
        return self.is_whole or self._writer.has_all("data", old.content or ())

    def _look(self, snapshot: str, name: bytes, *, clones: bool) -> None:
        try:
            # It may be gone by now, and all its blobs: what is relied on is looked for in the index, or known to be.
            file = self._writer.repository.known_snapshot(snapshot)
            found = [node for node in self._trees.nodes(file.tree) if nodes.name_of(node) == name]
        except (NotFound, Corrupt):
            return
        self.top = found[0] if found and found[0].type == "dir" else None
        self.is_whole = self.top is not None and self._writer.has_whole(snapshot)
        # Written again within the same tick of the kernel's clock, a file looks the same: then it was saved too early.
        # Clones are not written to, and the next ones are made when this snapshot is durable, which takes longer.
        self._trusted = _FOREVER if clones else times.read(file.time) - _TICK


def contradicts(old: Node, encoded: bytes) -> bool:
    """Whether a file that says it is as before, by all that the kernel tells, has another content."""
    if old.type != "file" or not old.content:
        return False
    new = nodes.decode(encoded)
    same_stamp = (old.inode, old.size, old.mtime, old.ctime) == (new.inode, new.size, new.mtime, new.ctime)
    return same_stamp and old.content != new.content and len(old.content) == len(new.content or ()) == 1
