"""What is in a snapshot, and what is different in another."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from orlop.snapshots import nodes
from orlop.snapshots.nodes import Node
from orlop.snapshots.repository import Repository
from orlop.snapshots.restore import find
from orlop.snapshots.treereader import TreeReader
from orlop.volumes.timeline import Snapshot, root


@dataclass(frozen=True, slots=True)
class Count:
    """Everything that is no folder, and the bytes of the files."""

    files: int
    size: int


@dataclass(frozen=True, slots=True)
class Change:
    """A path that was added, changed or deleted, as ``docker diff`` writes it."""

    kind: Literal["A", "C", "D"]
    path: str


def count(repository: Repository, snapshot: Snapshot) -> Count:
    """How much is in ``snapshot``."""
    trees, files, size = TreeReader(repository), 0, 0
    waiting = [_top(trees, snapshot)]
    while waiting:
        for node in trees.nodes(waiting.pop()):
            if node.subtree:
                waiting.append(node.subtree)
            else:
                files, size = files + 1, size + (node.size or 0)
    return Count(files, size)


def differences(repository: Repository, old: Snapshot, new: Snapshot) -> Iterator[Change]:
    """What is different in ``new``, in the order of paths; folders that share their tree are not looked into."""
    trees = TreeReader(repository)
    yield from _compared(trees, _top(trees, old), _top(trees, new), "")


def _compared(trees: TreeReader, old: str | None, new: str | None, above: str) -> Iterator[Change]:
    if old == new:
        return
    before, after = _entries(trees, old), _entries(trees, new)
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name), after.get(name)
        path = f"{above}/{name.decode(errors='surrogateescape')}"
        if was is None or now is None:
            yield Change("A" if was is None else "D", path)
        elif _is_other(was, now):
            yield Change("C", path)
        yield from _compared(trees, _below(was), _below(now), path)


def _below(node: Node | None) -> str | None:
    return node.subtree if node else None


def _entries(trees: TreeReader, tree: str | None) -> dict[bytes, Node]:
    return {nodes.name_of(node): node for node in trees.nodes(tree)} if tree else {}


def _is_other(was: Node, now: Node) -> bool:
    """Whether anything is different that a restore would bring back; a folder's content is told by itself."""
    return any(getattr(was, name) != getattr(now, name) for name in _TELLING)


_TELLING = ("type", "mode", "uid", "gid", "mtime", "size", "content", "linktarget", "device", "extended_attributes")


def _top(trees: TreeReader, snapshot: Snapshot) -> str:
    return find(trees, snapshot.file, root(snapshot)).subtree or ""
