"""A folder out of a repository: into a new place, or onto an existing one that becomes equal.

One thread walks the trees and makes folders; small files are made by worker processes, large ones by threads. Whoever
wrote the repository may be hostile: nothing is ever made outside the target, and no link is followed.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from orlop.errors import Corrupt, NotFound
from orlop.kernel import heap
from orlop.snapshots import metadata, nodes, placeholders, source, target
from orlop.snapshots.chunks import MIN
from orlop.snapshots.documents import SnapshotFile
from orlop.snapshots.entering import reading
from orlop.snapshots.nodes import Node
from orlop.snapshots.report import Kind, Problem, Progress
from orlop.snapshots.repository import Repository
from orlop.snapshots.restorelarge import LargeRestores
from orlop.snapshots.restoresmall import SmallRestores
from orlop.snapshots.restoreworker import Item
from orlop.snapshots.treereader import TreeReader


@dataclass(slots=True)
class Restored:
    """What was made: files (``unchanged`` of them were there already), bytes, and what was wrong."""

    files: int = 0
    unchanged: int = 0
    size: int = 0
    removed: int = 0
    problems: list[Problem] = field(default_factory=list)


def restore(repository: Repository, snapshot: SnapshotFile, folder: Path, *, path: str = "", delete: bool = False,
            progress: Callable[[Progress], None] | None = None, processes: int | None = None,
            lazy: placeholders.Lazy | None = None) -> Restored:  # fmt: skip
    """Make ``folder`` have what ``path`` has in the snapshot ("" for all of it); it is made if it is missing.

    A folder gives its entries and, to ``folder``, its owner, mode, attributes and times; a file is put into ``folder``.
    What is there already and is not as in the snapshot is replaced; with ``delete`` what the snapshot does not have is
    removed. Files that the kernel knows to be untouched since the snapshot stay. Asking again after a crash is right.
    With ``lazy`` files get no content: each is a placeholder that is given to it (`orlop.snapshots.placeholders`).

    Raises `NotFound` if the snapshot has no such path, `Corrupt` if a tree cannot be read; damaged files are left out
    and reported.
    """
    count = processes if processes is not None else min(8, os.cpu_count() or 1)
    heap.shared()
    with reading(repository), heap.kept():
        trees = TreeReader(repository)
        node = find(trees, snapshot, path)
        folder.mkdir(parents=True, exist_ok=True)
        root = os.open(folder, source.FOLDER)
        try:
            return _Restore(repository, trees, root, progress, count, delete=delete, lazy=lazy).run(node)
        finally:
            os.close(root)


def find(trees: TreeReader, snapshot: SnapshotFile, path: str) -> Node:
    """The node of ``path`` in the snapshot; of "" it has only a tree. Raises `NotFound`."""
    node = Node("", "dir", 0, 0, None, subtree=snapshot.tree)
    for part in [os.fsencode(part) for part in path.split("/") if part]:
        below = trees.nodes(node.subtree) if node.type == "dir" and node.subtree else []
        found = [one for one in below if nodes.name_of(one) == part]
        if not found:
            raise NotFound(f"the snapshot has no {path!r}")
        node = found[0]
    return node


@dataclass(frozen=True, slots=True)
class _Folder:
    path: bytes
    node: Node
    is_new: bool


class _Restore:
    def __init__(self, repository: Repository, trees: TreeReader, root: int,
                 progress: Callable[[Progress], None] | None, count: int, *, delete: bool,
                 lazy: placeholders.Lazy | None) -> None:  # fmt: skip
        self._repository, self._trees, self._root = repository, trees, root
        self._progress, self._delete, self._lazy = progress, delete, lazy
        self._small = SmallRestores(repository, root, self._count, count=count)
        self._large = LargeRestores(repository, root, threads=count)
        self._folders: list[_Folder] = []
        self._links: list[tuple[bytes, bytes]] = []
        self._first_links: dict[tuple[int, int], tuple[list[str] | None, bytes]] = {}
        self._done = Restored()

    def run(self, node: Node) -> Restored:
        with self._small, self._large:
            if node.type == "dir":
                self._walk(node)
            else:
                with source.beneath(self._root, b"") as fd:
                    whole = _Folder(b"", node, is_new=False)
                    self._entry(whole, fd, node, nodes.name_of(node), self._existing(fd), [])
            self._small.finish()
            for path, size, problem in self._large.finish():
                self._count(path, size, problem)
        self._link()
        self._finish_folders()
        return self._done

    # -- the walk

    def _walk(self, node: Node) -> None:
        folders = [_Folder(b"", node, is_new=False)]
        while folders:
            folder = folders.pop()
            self._folders.append(folder)
            below = self._visit(folder)
            folders.extend(reversed(below))
            self._small.go_on()
            if self._progress is not None:
                self._progress(Progress(self._done.files, self._done.size, folder.path))

    def _visit(self, folder: _Folder) -> list[_Folder]:
        entries = self._trees.nodes(folder.node.subtree) if folder.node.subtree else []
        below: list[_Folder] = []
        with source.beneath(self._root, folder.path) as fd:
            there = {} if folder.is_new else self._existing(fd)
            seen = set()
            for node in entries:
                name = nodes.name_of(node)
                if name in seen:
                    raise Corrupt(f"tree {folder.node.subtree!r} has {node.name!r} twice")
                seen.add(name)
                self._entry(folder, fd, node, name, there, below)
            for name in (there.keys() - seen) if self._delete else ():
                target.remove(fd, name)
                self._done.removed += 1
        return below

    def _existing(self, fd: int) -> dict[bytes, os.stat_result]:
        with os.scandir(fd) as entries:
            return {os.fsencode(entry.name): entry.stat(follow_symlinks=False) for entry in entries}

    def _entry(self, folder: _Folder, fd: int, node: Node, name: bytes, there: dict[bytes, os.stat_result],
               below: list[_Folder]) -> None:  # fmt: skip
        path = folder.path + b"/" + name if folder.path else name
        try:
            if node.type == "dir":
                below.append(_Folder(path, node, target.make_folder(fd, name)))
            elif not nodes.makes_sense(node):
                self._note(path, "damaged", "its numbers are none that a file can have")
            elif node.type not in nodes.KINDS:
                self._note(path, "unwritable", f"{node.type!r} is no type of file that can be made here")
            elif name in there and nodes.is_unchanged(node, there[name]):
                self._done.files += 1
                self._done.unchanged += 1
                self._remember(node, path)
            else:
                if name in there:
                    target.remove(fd, name)
                self._make(fd, folder, name, path, node)
        except (OSError, ValueError, OverflowError) as error:  # the latter two: numbers and targets no kernel takes
            self._note(path, "unwritable", str(error))

    def _make(self, fd: int, folder: _Folder, name: bytes, path: bytes, node: Node) -> None:
        first = self._remember(node, path)
        if first is not None:
            self._links.append((path, first))
        elif node.type != "file":
            self._count(path, 0, self._refused(target.special(fd, node)))
        elif self._lazy is None or not self._placeholder(fd, folder, name, path, node):
            self._file(folder.path, name, path, node)

    def _placeholder(self, fd: int, folder: _Folder, name: bytes, path: bytes, node: Node) -> bool:
        """Make a placeholder; False where that is no use: the file is empty, or sparse and larger than what is free."""
        if not node.size or not folder.node.subtree or self._lazy is None:
            return False
        try:
            refused = placeholders.make(self._repository, fd, name, node, folder.node.subtree, self._lazy)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return False
        self._count(path, node.size, self._refused(refused))
        return True

    def _remember(self, node: Node, path: bytes) -> bytes | None:
        """The path of the same inode that came before, if any."""
        if node.links < 2 or node.type == "dir" or not node.inode:
            return None
        content, first = self._first_links.setdefault((node.device_id, node.inode), (node.content, path))
        return first if first != path and content == node.content else None

    def _file(self, folder: bytes, name: bytes, path: bytes, node: Node) -> None:
        try:
            places = [self._repository.place("data", _id(blob)) for blob in node.content or ()]
        except Corrupt as error:
            self._note(path, "damaged", str(error))
            return
        if sum(blob.size for _, blob in places) != node.size:
            self._note(path, "damaged", "its content is not as long as the tree says")
        if len(places) > 1 or (places and places[0][1].size > MIN):
            self._large.submit(path, folder, name, node, places)
            return
        item, blob = Item(name, node), None
        if places:
            pack, blob = places[0]
            item = Item(name, node, pack, blob.id, blob.length, blob.uncompressed)
        self._small.submit(folder, path, item, blob)

    # -- what is told

    def _count(self, path: bytes, size: int, problem: Problem | None) -> None:
        self._done.files += 1
        self._done.size += size
        if problem is not None:
            self._done.problems.append(Problem(path, problem.kind, problem.reason))

    def _refused(self, refused: list[str]) -> Problem | None:
        return Problem(b"", "unwritable", "; ".join(refused)) if refused else None

    def _note(self, path: bytes, kind: Kind, reason: str) -> None:
        self._done.problems.append(Problem(path, kind, reason))

    # -- the end

    def _link(self) -> None:
        for path, first in self._links:
            try:
                with _parent(self._root, first) as (there, old), _parent(self._root, path) as (here, new):
                    os.link(old, new, src_dir_fd=there, dst_dir_fd=here, follow_symlinks=False)
                self._done.files += 1
            except OSError as error:
                self._note(path, "unwritable", f"a link to {os.fsdecode(first)!r}: {error}")

    def _finish_folders(self) -> None:
        # The deepest first: an entry that is made changes the times of its folder.
        for folder in reversed(self._folders):
            if not folder.node.name:
                continue  # the whole snapshot: its root has no owner or mode of its own
            with contextlib.suppress(FileNotFoundError), source.beneath(self._root, folder.path) as fd:
                refused = metadata.put_back(folder.node, fd)
                if refused:
                    self._note(folder.path, "unwritable", "; ".join(refused))


@contextlib.contextmanager
def _parent(root: int, path: bytes) -> Iterator[tuple[int, bytes]]:
    folder, _, name = path.rpartition(b"/")
    with source.beneath(root, folder) as fd:
        yield fd, name


def _id(blob: str) -> bytes:
    try:
        return bytes.fromhex(blob)
    except ValueError:
        raise Corrupt(f"{blob!r} is no id of a blob") from None
