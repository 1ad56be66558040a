"""Files that are there with everything but their content, and say where in a repository that is.

A placeholder has all its blocks, so no tool takes it for a hole that need not be read, and its room is its own; a large
one gets both from whoever wants it (`Lazy`). What it stands for is told by an extended attribute, which a rename, a
crash and another process find where they find the file.
"""

import errno
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final, Protocol

import msgspec

from orlop.errors import Corrupt
from orlop.snapshots import metadata, names, nodes, ranges, runs, target
from orlop.snapshots.nodes import Node
from orlop.snapshots.repository import Repository, opened
from orlop.snapshots.runs import Place, Run
from orlop.snapshots.treereader import TreeReader

ATTRIBUTE: Final = names.OWN_ATTRIBUTES + "lazy"
"""Only root can see it, and only on the host itself."""
CAPABILITY: Final = "security.capability"
"""The kernel takes it from every file that is written to."""
LARGE: Final = 16 << 20
"""Bytes from which on a file is fetched in parts: one of them takes no longer than a tenth of a second or so."""
_TREES: Final = 256


class Placeholder(msgspec.Struct, array_like=True, frozen=True):
    """What a file stands for: ``size`` bytes, of the node ``name`` in the tree blob ``tree``.

    A file whose own number is not ``inode`` is a copy that somebody made with all attributes. ``sparse`` says that its
    long holes are there already.
    """

    tree: bytes
    name: str
    size: int
    inode: int
    capability: bytes = b""
    sparse: bool = False

    @property
    def is_large(self) -> bool:
        """Whether it is fetched in parts."""
        return self.size > LARGE


class Lazy(Protocol):
    """Who wants placeholders."""

    def room(self, file: int, size: int, data: Sequence[tuple[int, int]]) -> None:
        """Give the open, empty, large file its size, and room for its content; raises `OSError` (ENOSPC).

        What is not in the ranges ``data`` (start, end) is a hole, and stays one.
        """

    def made(self, file: int, told: Placeholder) -> None:
        """The open file is as it is to be, and nobody else can see it yet."""


def make(repository: Repository, folder: int, name: bytes, node: Node, tree: str, lazy: Lazy) -> list[str]:
    """Make the file for ``lazy``.

    Returns what was refused. Raises `OSError` (ENOSPC) if there is no room, and leaves nothing then.
    """
    capability = next((one.value for one in node.extended_attributes or () if one.name == CAPABILITY), None)
    with target.NewFile(folder, name, 0) as fd:
        told = Placeholder(bytes.fromhex(tree), node.name, node.size, os.fstat(fd).st_ino, capability or b"")
        if told.is_large:
            data = _data(repository, node)
            told = msgspec.structs.replace(told, sparse=data != [(0, node.size)])
            lazy.room(fd, node.size, data)
        else:
            os.posix_fallocate(fd, 0, node.size)
        os.setxattr(fd, ATTRIBUTE, msgspec.msgpack.encode(told))
        refused = metadata.put_back(node, fd)
        lazy.made(fd, told)
    return refused


def of(file: int | str, *, links: bool = False) -> Placeholder | None:
    """What the file, open or by its path, stands for; None if it is no placeholder (any more).

    The path's last part is followed if ``links``.
    """
    try:
        links = links or isinstance(file, int)
        told = msgspec.msgpack.decode(os.getxattr(file, ATTRIBUTE, follow_symlinks=links), type=Placeholder)
        return told if os.stat(file, follow_symlinks=links).st_ino == told.inode else None  # noqa: PTH116
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.ENOENT):
            raise
        return None
    except msgspec.DecodeError as error:
        raise Corrupt(f"attribute {ATTRIBUTE!r} of {file!r} makes no sense: {error}") from None


class Contents:
    """What placeholders stand for, from their repository. Threads may share it; every verb raises `Corrupt`."""

    def __init__(self, repository: Repository):
        """Nothing is read yet."""
        self._repository = repository
        self._folder = lru_cache(_TREES)(self._read_folder)

    def parts(self, placeholder: Placeholder) -> list[Run]:
        """The parts in which it is fetched, in order: the same ones whenever one asks."""
        node = self._node(placeholder)
        if placeholder.is_large:
            return _parts(self._repository, node, sparse=placeholder.sparse)
        return [Run(0, node.size, tuple(_places(self._repository, node)))]

    def fetch(self, parts: list[Run]) -> dict[bytes, memoryview]:
        """The sealed blobs of all ``parts``, by few requests."""
        found: dict[bytes, memoryview] = {}
        for together in ranges.together(place for part in parts for place in part.places):
            found.update(ranges.read(self._repository.store, together))
        return found

    def content(self, part: Run, sealed: Mapping[bytes, memoryview]) -> Iterator[bytes]:
        """The bytes of ``part`` in order, from the sealed blobs that `fetch` found."""
        return (opened(self._repository.seal, sealed[blob.id], blob, pack) for pack, blob in part.places)

    def reload(self) -> None:
        """A prune may have moved what is needed: look again where it is."""
        self._repository.indexes.look()

    def _node(self, placeholder: Placeholder) -> Node:
        node = self._folder(placeholder.tree.hex()).get(placeholder.name)
        if node is None or node.type != "file":
            raise Corrupt(f"tree {placeholder.tree.hex()!r} has no file {placeholder.name!r}")
        return node

    def _read_folder(self, tree: str) -> dict[str, Node]:
        blob = self._repository.read("tree", bytes.fromhex(tree))
        return {node.name: node for node in nodes.parsed(blob, tree)}


def _places(repository: Repository, node: Node) -> list[Place]:
    places = [repository.place("data", bytes.fromhex(blob)) for blob in node.content or ()]
    if sum(blob.size for _, blob in places) != node.size:
        raise Corrupt(f"the content of {node.name!r} is not as long as its tree says")
    return places


def _parts(repository: Repository, node: Node, *, sparse: bool) -> list[Run]:
    return list(runs.split(node.content or (), _places(repository, node), holes=sparse))


def _data(repository: Repository, node: Node) -> list[tuple[int, int]]:
    """The ranges of a large file that are no holes; all of it if its content is damaged, which its reader is told."""
    if not runs.may_have_holes(node.content or ()):
        return [(0, node.size)]
    try:
        parts = _parts(repository, node, sparse=True)
    except Corrupt:
        return [(0, node.size)]
    groups = [(hole, list(some)) for hole, some in itertools.groupby(parts, lambda part: part.is_hole)]
    return [(some[0].start, some[-1].end) for hole, some in groups if not hole]


def is_larger(trees: TreeReader, top: Node, limit: int) -> bool:
    """Whether what is below ``top`` has more than ``limit`` bytes; looks no further than it must."""
    folders, size = [top], 0
    while folders and size <= limit:
        below = trees.nodes(folders.pop().subtree or "")
        size += sum(node.size for node in below if node.type == "file")
        folders += [node for node in below if node.type == "dir" and node.subtree]
    return size > limit
