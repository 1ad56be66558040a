"""Folders on their way to be trees: each becomes one when all of its places are full, the innermost first."""

from typing import Final

import msgspec

from orlop.snapshots import nodes
from orlop.snapshots.nodes import Node
from orlop.snapshots.writer import Writer

GONE: Final = b""
"""The entry of what is not in the snapshot."""


class Folder:
    """A folder on its way to be a tree: its entries in order, each None as long as it is at work."""

    __slots__ = ("above", "at_work", "entries", "is_there", "node", "old", "old_count", "path", "place")

    def __init__(self, path: bytes, above: "Folder | None", place: int, old: Node | None) -> None:
        self.path, self.above, self.place, self.old = path, above, place, old
        self.entries: list[Node | bytes | None] = []
        self.at_work = 1
        self.old_count = 0
        self.is_there = False  # all content that the folder had in the parent
        self.node: Node | None = None  # what it is by itself; None if it is what it was

    def beneath(self, name: bytes) -> bytes:
        """The path of an entry."""
        return self.path + b"/" + name if self.path else name


class Growing:
    """Makes trees of folders; ``tree`` is the id of the first one when all have ended."""

    def __init__(self, writer: Writer, *, old_is_whole: bool) -> None:
        """``old_is_whole`` says that all trees which the folders had before are still stored."""
        self._writer, self._old_is_whole, self.tree = writer, old_is_whole, ""

    def fill(self, folder: Folder, place: int, entry: bytes | Node) -> None:
        """What was given away has come back: one part of the folder's work has ended."""
        folder.entries[place] = entry
        if folder.at_work > 1:
            folder.at_work -= 1
        else:
            self.finish(folder)

    def finish(self, folder: Folder) -> None:
        """One part of the folder's work has ended; when all have, it becomes a tree and an entry of its own folder."""
        current: Folder | None = folder
        while current is not None:
            current.at_work -= 1
            if current.at_work:
                return
            entry = self._stored(current)
            if current.above is None:
                self.tree = self._writer.add("tree", nodes.tree([_encoded(entry)])).hex()
            else:
                current.above.entries[current.place] = entry
            current = current.above

    def _stored(self, folder: Folder) -> Node | bytes:
        entries = [entry for entry in folder.entries if entry]
        folder.entries = []
        old = folder.old
        as_before = old is not None and len(entries) == folder.old_count and bytes not in set(map(type, entries))
        if as_before and old is not None and old.subtree and self._is_there(old.subtree):
            if folder.node is None:
                return old
            tree = old.subtree
        else:
            tree = self._writer.add("tree", nodes.tree(map(_encoded, entries))).hex()
        node = folder.node or old
        assert node is not None  # noqa: S101 - it was listed
        return nodes.encode(msgspec.structs.replace(node, subtree=tree))

    def _is_there(self, tree: str) -> bool:
        return self._old_is_whole or self._writer.has_all("tree", [tree])


def _encoded(entry: Node | bytes) -> bytes:
    return nodes.encode(entry) if isinstance(entry, Node) else entry
