"""Which blobs the snapshots of a repository need, about 35 bytes each in memory."""

from collections.abc import Iterable

import msgspec

from orlop.errors import Corrupt
from orlop.snapshots.packs import Kind
from orlop.snapshots.repository import Repository
from orlop.snapshots.table import Table
from orlop.snapshots.treereader import TreeReader

_YES = b"\1"


class _Entry(msgspec.Struct, gc=False):
    content: list[str] | None = None
    subtree: str | None = None


class _Tree(msgspec.Struct):
    nodes: list[_Entry] | None = None


class Usage:
    """The ids of all blobs that some tree or snapshot refers to."""

    def __init__(self) -> None:
        self._tables: dict[Kind, Table] = {"data": Table(1), "tree": Table(1)}

    def has(self, kind: Kind, blob: bytes) -> bool:
        """Whether the blob is needed."""
        return self._tables[kind].get(blob) is not None

    def add(self, kind: Kind, blob: bytes) -> bool:
        """It is needed; False if that was known."""
        return self._tables[kind].add(blob, _YES)

    def count(self, kind: Kind) -> int:
        """How many are needed."""
        return len(self._tables[kind])

    def blobs(self, kind: Kind) -> Iterable[bytes]:
        """All that are needed."""
        return (blob for blob, _ in self._tables[kind].items())


def usage(repository: Repository, trees: Iterable[str]) -> Usage:
    """Everything that these trees need; raises `Corrupt` naming a tree that cannot be read."""
    found, reader, decoder = Usage(), TreeReader(repository), msgspec.json.Decoder(_Tree)
    todo = list(trees)
    while todo:
        tree = todo.pop()
        try:
            if not found.add("tree", bytes.fromhex(tree)):
                continue
            entries = decoder.decode(reader.blob(tree)).nodes or ()
            for entry in entries:
                for blob in entry.content or ():
                    found.add("data", bytes.fromhex(blob))
        except (ValueError, msgspec.DecodeError) as error:
            raise Corrupt(f"tree {tree!r} is damaged: {error}") from None
        todo.extend(entry.subtree for entry in entries if entry.subtree)
    return found
