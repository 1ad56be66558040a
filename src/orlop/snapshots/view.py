"""A snapshot as a folder to look at: entries by path, files by range, read from the repository when somebody asks.

Whoever wrote the repository may be hostile: a name that could mean another place, or is there twice, is an error of the
folder that has it.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, TypeVar

from orlop.errors import Corrupt, NotFound
from orlop.snapshots import nodes
from orlop.snapshots.nodes import Node
from orlop.snapshots.repository import Repository
from orlop.snapshots.treereader import TreeReader

K = TypeVar("K")
T = TypeVar("T")
_FOLDERS: Final = 256
_BLOBS: Final = 8
"""Blobs that are kept in memory: of 8 MiB at most."""


class View:
    """What is below ``top``, a folder of a snapshot. For one thread. Every verb raises `NotFound` or `Corrupt`."""

    def __init__(self, repository: Repository, top: Node):
        self._repository, self._top, self._trees = repository, top, TreeReader(repository)
        self._folders: OrderedDict[str, Mapping[bytes, Node]] = OrderedDict()
        self._blobs: OrderedDict[str, bytes] = OrderedDict()

    def node(self, path: bytes) -> Node:
        """The entry at ``path``; of ``/`` it is the folder itself."""
        found = self._top
        for name in filter(None, path.split(b"/")):
            below = self.entries(found)
            if name not in below:
                raise NotFound(f"the snapshot has no {path!r}")
            found = below[name]
        return found

    def entries(self, folder: Node) -> Mapping[bytes, Node]:
        """What is in a folder, by name; nothing is in anything else."""
        if folder.type != "dir" or not folder.subtree:
            return {}
        tree = folder.subtree
        return _kept(self._folders, tree, _FOLDERS, lambda: self._read_folder(tree))

    def open(self, file: Node) -> "File":
        """A file's content."""
        content = file.content or []
        return File(content, list(accumulate(self._length(blob) for blob in content)), self._blob)

    def _read_folder(self, tree: str) -> Mapping[bytes, Node]:
        found: dict[bytes, Node] = {}
        for node in self._trees.nodes(tree):
            name = nodes.name_of(node)
            if name in found or not nodes.makes_sense(node):
                raise Corrupt(f"tree {tree!r} has {node.name!r} twice, or with numbers that no file has")
            found[name] = node
        return found

    def _length(self, blob: str) -> int:
        return self._repository.place("data", _id(blob))[1].size

    def _blob(self, blob: str) -> bytes:
        return _kept(self._blobs, blob, _BLOBS, lambda: self._repository.read("data", _id(blob)))


@dataclass(frozen=True, slots=True)
class File:
    """The blobs of a file, and where in it each ends."""

    blobs: Sequence[str]
    ends: Sequence[int]
    load: Callable[[str], bytes]

    def read(self, size: int, offset: int) -> bytes:
        """At most ``size`` bytes from ``offset`` on."""
        parts, number, end = [], bisect_right(self.ends, offset), offset + size
        while number < len(self.blobs) and offset < end:
            blob = self.load(self.blobs[number])
            start = offset - (self.ends[number] - len(blob))
            parts.append(blob[start : start + end - offset])
            offset, number = self.ends[number], number + 1
        return b"".join(parts)


def _kept(cache: OrderedDict[K, T], key: K, most: int, make: Callable[[], T]) -> T:
    """What is in the cache, or what is made and put there in place of what was used longest ago."""
    if key not in cache:
        cache[key] = make()
        if len(cache) > most:
            cache.popitem(last=False)
    cache.move_to_end(key)
    return cache[key]


def _id(blob: str) -> bytes:
    try:
        return bytes.fromhex(blob)
    except ValueError:
        raise Corrupt(f"{blob!r} is no id of a blob") from None
