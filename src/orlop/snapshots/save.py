"""A folder into a repository: everything that changed since the parent snapshot, and nothing twice.

One thread walks, in the order of names. Small files go to worker processes in batches, large ones to threads; what
comes back fills the places of a folder, and a folder whose places are full becomes a tree. So what is in memory are
the folders on the way and the batches at work, however many files there are.
"""

import errno
import os
import queue
import random
import socket
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from orlop.errors import Corrupt, Invalid, NotFound, Unavailable
from orlop.snapshots import names, nodes, source, times
from orlop.snapshots.changes import Changed
from orlop.snapshots.chunks import MIN
from orlop.snapshots.documents import SnapshotFile
from orlop.snapshots.largefiles import Large, LargeFiles
from orlop.snapshots.locks import user_name
from orlop.snapshots.nodes import Node
from orlop.snapshots.report import Kind, Problem, Progress
from orlop.snapshots.repository import Repository
from orlop.snapshots.treereader import TreeReader
from orlop.snapshots.worker import Done, Job, Reader, Start
from orlop.snapshots.workers import Workers
from orlop.snapshots.writer import Writer

INCOMPLETE: Final = "orlop.incomplete"
"""The tag of a snapshot in which something is missing that was there."""
_BATCH: Final = 256
_BATCH_BYTES: Final = 2 << 20
_LARGE_AHEAD: Final = 256
_TICK: Final = 20_000_000
"""Nanoseconds: twice what the coarsest clock of a kernel takes from one time stamp to the next."""
_AUDIT: Final = 1 / 2000
"""The share of unchanged files that are read again all the same, to find out whether they are."""


Same = Callable[[bytes, os.stat_result, Node], bool]
"""Who knows that a file, which looks different from its node in the parent, has the content that the node says.

Asked with the file's path in the folder and what it looks like.
"""


@dataclass(frozen=True, slots=True)
class About:
    """What a snapshot says of itself: the folder's name in it, when it was (nanoseconds since 1970), tags."""

    name: str
    when: int
    hostname: str = field(default_factory=socket.gethostname)
    tags: Sequence[str] = ()


@dataclass(slots=True)
class Saved:
    """A snapshot that is durable: its id, what was in the folder, and what was wrong."""

    snapshot: str = ""
    files: int = 0
    unchanged: int = 0
    size: int = 0
    stored: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether everything that was there is in the snapshot."""
        return all(problem.kind in ("vanished", "changed") for problem in self.problems)


def save(repository: Repository, folder: Path, about: About, *, parent: str | None = None,
         changed: Changed | None = None, same: Same | None = None,
         progress: Callable[[Progress], None] | None = None, processes: int | None = None) -> Saved:  # fmt: skip
    """Save ``folder`` as one new snapshot, in which it is called ``about.name``.

    Files that are as the snapshot ``parent`` has them are not read again, as the kernel or ``same`` tells; large ones
    only where they are ``changed``. ``processes`` is how many read small files
    (None: one for each processor, at most eight). Raises `Busy` while somebody holds the repository exclusively.
    """
    if not names.is_safe(os.fsencode(about.name)):
        raise Invalid(f"{about.name!r} cannot be the name of a folder")
    count = processes if processes is not None else min(8, os.cpu_count() or 1)
    with Writer(repository) as writer:
        # After the lock: a parent that is there now keeps its blobs until the lock has gone.
        before, since = _parent_node(repository, parent, about.name)
        root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return _Save(writer, root, about, changed, same, progress, count).run(parent, before, since)
        finally:
            os.close(root)


class _Folder:
    """A folder on its way to be a tree: its entries in order, each None as long as it is at work."""

    __slots__ = ("above", "at_work", "entries", "is_there", "node", "old", "old_count", "path", "place", "status")

    def __init__(self, path: bytes, above: "_Folder | None", place: int, old: Node | None) -> None:
        self.path, self.above, self.place, self.old = path, above, place, old
        self.entries: list[Node | bytes | None] = []
        self.at_work = 1
        self.old_count = 0
        self.is_there = False  # all content that the folder had in the parent
        self.node: Node | None = None
        self.status: os.stat_result | None = None


_GONE: Final = b""
"""The entry of what is not in the snapshot."""
_Place = tuple[_Folder, int, bytes, "Node | None"]


class _Save:
    def __init__(self, writer: Writer, root: int, about: About, changed: Changed | None, same: Same | None,
                 progress: Callable[[Progress], None] | None, count: int) -> None:  # fmt: skip
        self._writer, self._about, self._root = writer, about, root
        self._progress, self._same = progress, same
        self._trees = TreeReader(writer.repository)
        self._results: queue.SimpleQueue[Done | Large | BaseException] = queue.SimpleQueue()
        start = Start(writer.repository.sealing_keys, writer.compress, root)
        self._own = Reader(writer.repository.seal, root, compress=writer.compress)
        self._workers = Workers("orlop.snapshots.worker", start, root, Done, self._results.put, count=count)
        self._large = LargeFiles(writer, root, self._results.put, changed, threads=count)
        self._places: dict[int, list[_Place]] = {}
        self._number = 0
        self._batch: list[_Place] = []
        self._batch_bytes = 0
        self._large_at_work = 0
        self._saved = Saved()
        self._tree = ""
        self._trusted = 0

    def run(self, parent: str | None, before: Node | None, since: int) -> Saved:
        self._trusted = since - _TICK
        with self._workers, self._large:
            self._walk(before)
        saved = self._saved
        tags = [*self._about.tags, *([] if saved.is_complete else [INCOMPLETE])]
        saved.snapshot = self._writer.commit(
            SnapshotFile(
                time=times.written(self._about.when),
                tree=self._tree,
                paths=[f"/{self._about.name}"],
                hostname=self._about.hostname,
                username=user_name(),
                uid=os.getuid(),
                gid=os.getgid(),
                parent=parent,
                tags=tags,
            )
        )
        saved.stored = self._writer.stored_bytes
        return saved

    # -- the walk

    def _walk(self, before: Node | None) -> None:
        folders = [_Folder(b"", None, 0, before)]
        while folders:
            folder = folders.pop()
            self._visit(folder, folders)
            self._take(wait=False)
            while self._workers.are_full or self._large_at_work >= _LARGE_AHEAD:
                self._take(wait=True)
        self._send(last=True)
        while self._places:
            self._take(wait=True)

    def _visit(self, folder: _Folder, folders: list[_Folder]) -> None:
        try:
            with source.beneath(self._root, folder.path) as fd:
                folder.status = os.fstat(fd)
                folder.node = nodes.node(_name(folder, self._about), folder.status, source.attributes(fd))
                self._list(folder, fd, folders)
        except OSError as error:
            if folder.above is None:
                raise Unavailable(f"the folder cannot be read: {error}") from error
            if folder.status is None:
                self._lose(folder.path, error)
                self._fill(folder.above, folder.place, _GONE)
                return
            self._lose(folder.path, error)
        self._report(folder.path)
        self._finish(folder)

    def _list(self, folder: _Folder, fd: int, folders: list[_Folder]) -> None:
        old = self._old_entries(folder)
        with os.scandir(fd) as entries:
            encode = os.fsencode
            listed = sorted([(encode(entry.name), entry) for entry in entries])
        below = []
        for name, entry in listed:
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError as error:
                self._lose(_join(folder.path, name), error)
                continue
            before = old.get(name)
            if before is not None and self._stays(folder, before, status):
                folder.entries.append(before)
                continue
            folder.entries.append(None)
            if stat.S_ISDIR(status.st_mode):
                folder.at_work += 1
                below.append(_Folder(_join(folder.path, name), folder, len(folder.entries) - 1, before))
            else:
                self._file(folder, fd, name, status, before)
        folders.extend(reversed(below))

    def _old_entries(self, folder: _Folder) -> dict[bytes, Node]:
        if folder.old is None or folder.old.subtree is None:
            return {}
        try:
            old = {names.unquoted(node.name): node for node in self._trees.nodes(folder.old.subtree)}
        except Corrupt:
            # The parent is damaged here: everything below is read again, which is what repairs it.
            folder.old = None
            return {}
        folder.old_count = len(old)
        # Asked for all at once: one by one it would take as long as the look at the files.
        folder.is_there = self._writer.has_all("data", [blob for node in old.values() for blob in node.content or ()])
        return old

    def _file(self, folder: _Folder, fd: int, name: bytes, status: os.stat_result, old: Node | None) -> None:
        place = len(folder.entries) - 1
        self._saved.files += 1
        if not stat.S_ISREG(status.st_mode):
            folder.entries[place] = self._special(folder, fd, name, status)
            return
        if old is not None and self._is_same(folder, name, status, old):
            folder.entries[place] = self._renewed(folder, fd, name, old)
            return
        folder.at_work += 1
        if status.st_size > MIN:
            self._send_large(folder, place, name, old)
        else:
            self._batch.append((folder, place, name, old))
            self._batch_bytes += status.st_size
            if len(self._batch) >= _BATCH or self._batch_bytes >= _BATCH_BYTES:
                self._send()

    def _special(self, folder: _Folder, fd: int, name: bytes, status: os.stat_result) -> bytes:
        try:
            found = source.other(fd, name, status)
        except OSError as error:
            self._lose(_join(folder.path, name), error)
            return _GONE
        return _GONE if found is None else nodes.encode(found)

    def _stays(self, folder: _Folder, old: Node, status: os.stat_result) -> bool:
        """Whether the parent's node is right for what is no folder, and need not be looked at more closely."""
        # Written again within the same tick of the kernel's clock, a file looks the same: then it was saved too early.
        if status.st_ctime_ns >= self._trusted or not nodes.is_unchanged(old, status) or old.type == "dir":
            return False
        if not folder.is_there and not self._writer.has_all("data", old.content or ()):
            return False
        if old.type == "file" and old.size <= MIN and random.random() < _AUDIT:  # noqa: S311 - no secret
            return False
        self._saved.files += 1
        self._saved.unchanged += 1
        self._saved.size += old.size
        return True

    def _is_same(self, folder: _Folder, name: bytes, status: os.stat_result, old: Node) -> bool:
        """Whether somebody knows that the content is the parent's, although the kernel cannot."""
        if self._same is None or old.type != "file" or old.size != status.st_size:
            return False
        if status.st_ctime_ns < self._trusted and nodes.is_unchanged(old, status):
            return False  # the kernel says it is, and it is read to find out whether that is true
        known = self._same(_join(folder.path, name), status, old)
        return known and self._writer.has_all("data", old.content or ())

    def _renewed(self, folder: _Folder, fd: int, name: bytes, old: Node) -> Node | bytes:
        """The parent's content, with all else as it is now."""
        try:
            with source.opened(fd, name) as (file, now):
                entry = source.file_node(file, name, now, old.size)
        except OSError as error:
            self._lose(_join(folder.path, name), error)
            return _GONE
        entry.content = old.content
        self._saved.unchanged += 1
        self._saved.size += old.size
        return entry

    # -- work that is given away

    def _send(self, *, last: bool = False) -> None:
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        if not batch:
            return
        job = Job(self._next(batch), [])
        for folder, _, name, _ in batch:
            if not job.folders or job.folders[-1][0] != folder.path:
                job.folders.append((folder.path, []))
            job.folders[-1][1].append(name)
        if last and not self._workers.are_started:
            # For a few files this is quicker than to start a process.
            self._took(self._own.done(job))
        else:
            while self._workers.are_full:
                self._take(wait=True)
            self._workers.submit(job)

    def _send_large(self, folder: _Folder, place: int, name: bytes, old: Node | None) -> None:
        self._large_at_work += 1
        number = self._next([(folder, place, name, old)])
        self._large.submit(Large(number, folder.path, name, old if old is not None and old.type == "file" else None))

    def _next(self, places: list[_Place]) -> int:
        self._number += 1
        self._places[self._number] = places
        return self._number

    # -- what comes back

    def _take(self, *, wait: bool) -> None:
        while self._places and (wait or not self._results.empty()):
            result = self._results.get()
            wait = False
            if isinstance(result, BaseException):
                raise result
            if isinstance(result, Done):
                self._workers.received(result)
                self._took(result)
            else:
                self._took_large(result)

    def _took(self, done: Done) -> None:
        places = self._places.pop(done.number)
        self._writer.add_small([(r.blob, r.length, r.uncompressed) for r in done.files if r.length], done.sealed)
        for (folder, place, name, old), read in zip(places, done.files, strict=True):
            if read.error is not None:
                self._not_read(folder, place, name, old, read.error)
                continue
            if not read.steady:
                self._note(_join(folder.path, name), "changed", "it was written while it was read")
            self._saved.size += read.size
            self._fill(folder, place, read.node if old is None else self._audited(folder, name, old, read.node))

    def _not_read(self, folder: _Folder, place: int, name: bytes, old: Node | None, error: int) -> None:
        if error == 0:  # it has grown
            self._send_large(folder, place, name, old)
            return
        self._lose(_join(folder.path, name), OSError(error, _reason(error)))
        self._fill(folder, place, _GONE)

    def _took_large(self, file: Large) -> None:
        self._large_at_work -= 1
        ((folder, place, name, old),) = self._places.pop(file.number)
        path = _join(folder.path, name)
        if file.error is not None:
            self._lose(path, file.error)
            self._fill(folder, place, _GONE)
            return
        if not file.steady:
            self._note(path, "changed", "it was written while it was read")
        if file.contradiction:
            self._note(path, "contradiction", "blocks that were said to be unchanged differ from the parent's")
        self._saved.size += file.size
        self._fill(folder, place, self._audited(folder, name, old, file.node))

    def _audited(self, folder: _Folder, name: bytes, old: Node | None, encoded: bytes) -> bytes:
        """The node, after a look whether a file that says it is as before really is."""
        if old is not None and old.type == "file" and old.content:
            new = nodes.decode(encoded)
            same_stamp = (old.inode, old.size, old.mtime, old.ctime) == (new.inode, new.size, new.mtime, new.ctime)
            if same_stamp and self._differs(old, new):
                reason = "its content is another although size, times and inode are the same"
                self._note(_join(folder.path, name), "contradiction", reason)
        return encoded

    def _differs(self, old: Node, new: Node) -> bool:
        return old.content != new.content and len(old.content or ()) == len(new.content or ()) == 1

    def _fill(self, folder: _Folder, place: int, entry: bytes | Node) -> None:
        folder.entries[place] = entry
        if folder.at_work > 1:
            folder.at_work -= 1
        else:
            self._finish(folder)

    def _finish(self, folder: _Folder) -> None:
        """One part of the folder's work has ended; when all have, it becomes a tree and an entry of its own folder."""
        current: _Folder | None = folder
        while current is not None:
            current.at_work -= 1
            if current.at_work:
                return
            entry = self._stored(current)
            if current.above is None:
                self._tree = self._writer.add("tree", nodes.tree([_encoded(entry)])).hex()
            else:
                current.above.entries[current.place] = entry
            current = current.above

    def _stored(self, folder: _Folder) -> Node | bytes:
        assert folder.node is not None  # noqa: S101 - it was listed
        assert folder.status is not None  # noqa: S101
        entries = [entry for entry in folder.entries if entry]
        folder.entries = []
        old = folder.old
        as_before = old is not None and len(entries) == folder.old_count and bytes not in set(map(type, entries))
        if as_before and old is not None and old.subtree and self._writer.has_all("tree", [old.subtree]):
            folder.node.subtree = old.subtree
            if nodes.is_unchanged(old, folder.status) and old.name == folder.node.name:
                return old
        else:
            folder.node.subtree = self._writer.add("tree", nodes.tree(map(_encoded, entries))).hex()
        return nodes.encode(folder.node)

    # -- what is told

    def _lose(self, path: bytes, error: OSError) -> None:
        vanished = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
        self._note(path, "vanished" if vanished else "unreadable", error.strerror or str(error))

    def _note(self, path: bytes, kind: Kind, why: str) -> None:
        self._saved.problems.append(Problem(path, kind, why))

    def _report(self, path: bytes) -> None:
        if self._progress is not None:
            self._progress(Progress(self._saved.files, self._saved.size, path))


def _parent_node(repository: Repository, parent: str | None, name: str) -> tuple[Node | None, int]:
    """The folder in the parent, and when that was; None if there is no such parent, or it is of something else."""
    if parent is None:
        return None, 0
    try:
        file = repository.snapshot(parent)
        found = [node for node in TreeReader(repository).nodes(file.tree) if nodes.name_of(node) == os.fsencode(name)]
        return (found[0] if found and found[0].type == "dir" else None), times.read(file.time)
    except (NotFound, Corrupt):
        return None, 0


def _encoded(entry: Node | bytes) -> bytes:
    return nodes.encode(entry) if isinstance(entry, Node) else entry


def _join(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name


def _name(folder: _Folder, about: About) -> bytes:
    return folder.path.rpartition(b"/")[2] if folder.above is not None else os.fsencode(about.name)


def _reason(code: int) -> str:
    return os.strerror(code) if code > 0 else "it is no file any more"
