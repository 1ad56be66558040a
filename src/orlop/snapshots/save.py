"""A folder into a repository: everything that changed since the parent snapshot, and nothing twice.

One thread walks, in the order of names. Small files go to worker processes in batches, large ones to threads; what
comes back fills the places of a folder, and a folder whose places are full becomes a tree. So what is in memory are
the folders on the way and the batches at work, however many files there are.
"""

import errno
import operator
import os
import queue
import socket
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from orlop.errors import Invalid, Unavailable
from orlop.kernel import heap
from orlop.snapshots import names, nodes, source, times
from orlop.snapshots.changes import Changed
from orlop.snapshots.chunks import MIN
from orlop.snapshots.documents import SnapshotFile
from orlop.snapshots.growing import GONE, Folder, Growing
from orlop.snapshots.largefiles import Large, LargeFiles
from orlop.snapshots.locks import user_name
from orlop.snapshots.nodes import Node
from orlop.snapshots.parent import Parent, Same, contradicts
from orlop.snapshots.report import Kind, Problem, Progress
from orlop.snapshots.repository import Repository
from orlop.snapshots.worker import Done, Job, Reader, Start
from orlop.snapshots.workers import Workers
from orlop.snapshots.writer import Writer

INCOMPLETE: Final = "orlop.incomplete"
"""The tag of a snapshot in which something is missing that was there."""
_BATCH: Final = 256
_BATCH_BYTES: Final = 2 << 20
_LARGE_AHEAD: Final = 256


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
         changed: Changed | None = None, same: Same | None = None, clones: bool = False,
         progress: Callable[[Progress], None] | None = None, processes: int | None = None) -> Saved:  # fmt: skip
    """Save ``folder`` as one new snapshot, in which it is called ``about.name``.

    Files that are as the snapshot ``parent`` has them are not read again, as the kernel or ``same`` tells; large ones
    only where they are ``changed``. Of files that are ``clones`` the kernel is believed however young they are: nobody
    has written to them after they were made. ``processes`` is how many read small files
    (None: one for each processor, at most eight). Raises `Busy` while somebody holds the repository exclusively.
    """
    if not names.is_safe(os.fsencode(about.name)):
        raise Invalid(f"{about.name!r} cannot be the name of a folder")
    count = processes if processes is not None else min(8, os.cpu_count() or 1)
    heap.shared()
    with Writer(repository) as writer:
        # After the lock: a parent that is there now keeps its blobs until the lock has gone.
        before = Parent(writer, parent, about.name, same, clones=clones)
        root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return _Save(writer, root, about, changed, before, progress, count).run()
        finally:
            os.close(root)


_Place = tuple[Folder, int, bytes, "Node | None"]


class _Save:
    def __init__(self, writer: Writer, root: int, about: About, changed: Changed | None, parent: Parent,
                 progress: Callable[[Progress], None] | None, count: int) -> None:  # fmt: skip
        self._writer, self._about, self._root = writer, about, root
        self._progress, self._parent = progress, parent
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
        self._growing = Growing(writer)

    def run(self) -> Saved:
        with self._workers, self._large:
            self._walk(self._parent.top)
        saved = self._saved
        tags = [*self._about.tags, *([] if saved.is_complete else [INCOMPLETE])]
        saved.snapshot = self._writer.commit(
            SnapshotFile(
                time=times.written(self._about.when),
                tree=self._growing.tree,
                paths=[f"/{self._about.name}"],
                hostname=self._about.hostname,
                username=user_name(),
                uid=os.getuid(),
                gid=os.getgid(),
                parent=self._parent.snapshot,
                tags=tags,
            )
        )
        saved.stored = self._writer.stored_bytes
        return saved

    # -- the walk

    def _walk(self, before: Node | None) -> None:
        folders = [Folder(b"", None, 0, before)]
        while folders:
            folder = folders.pop()
            self._visit(folder, folders)
            self._take(wait=False)
            while self._workers.are_full or self._large_at_work >= _LARGE_AHEAD:
                self._take(wait=True)
        self._send(last=True)
        while self._places:
            self._take(wait=True)

    def _visit(self, folder: Folder, folders: list[Folder]) -> None:
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
                self._growing.fill(folder.above, folder.place, GONE)
                return
            self._lose(folder.path, error)
        self._report(folder.path)
        self._growing.finish(folder)

    def _list(self, folder: Folder, fd: int, folders: list[Folder]) -> None:
        old = self._parent.entries(folder)
        with os.scandir(fd) as entries:
            listed = _in_order(list(entries))
        below, stays = [], self._parent.stays
        for entry in listed:
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError as error:
                self._lose(_join(folder.path, os.fsencode(entry.name)), error)
                continue
            before = old.get(entry.name)
            # Hardly anything is done for a file that is as it was: of most folders these are all.
            if before is not None and stays(folder, before, status):
                folder.entries.append(before)
                self._saved.files += 1
                self._count_unchanged(before)
                continue
            name = os.fsencode(entry.name)
            folder.entries.append(None)
            if stat.S_ISDIR(status.st_mode):
                folder.at_work += 1
                below.append(Folder(_join(folder.path, name), folder, len(folder.entries) - 1, before))
            else:
                self._file(folder, fd, name, status, before)
        folders.extend(reversed(below))

    def _file(self, folder: Folder, fd: int, name: bytes, status: os.stat_result, old: Node | None) -> None:
        place = len(folder.entries) - 1
        self._saved.files += 1
        if not stat.S_ISREG(status.st_mode):
            folder.entries[place] = self._special(folder, fd, name, status)
            return
        if old is not None and self._parent.is_same(_join(folder.path, name), status, old):
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

    def _special(self, folder: Folder, fd: int, name: bytes, status: os.stat_result) -> bytes:
        try:
            found = source.other(fd, name, status)
        except OSError as error:
            self._lose(_join(folder.path, name), error)
            return GONE
        return GONE if found is None else nodes.encode(found)

    def _renewed(self, folder: Folder, fd: int, name: bytes, old: Node) -> Node | bytes:
        """The parent's content, with all else as it is now."""
        try:
            with source.opened(fd, name) as (file, now):
                entry = source.file_node(file, name, now, old.size)
        except OSError as error:
            self._lose(_join(folder.path, name), error)
            return GONE
        entry.content = old.content
        self._count_unchanged(old)
        return entry

    def _count_unchanged(self, old: Node) -> None:
        self._saved.unchanged += 1
        self._saved.size += old.size

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

    def _send_large(self, folder: Folder, place: int, name: bytes, old: Node | None) -> None:
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
            self._audit(folder, name, old, read.node)
            self._growing.fill(folder, place, read.node)

    def _not_read(self, folder: Folder, place: int, name: bytes, old: Node | None, error: int) -> None:
        if error == 0:  # it has grown
            self._send_large(folder, place, name, old)
            return
        self._lose(_join(folder.path, name), OSError(error, _reason(error)))
        self._growing.fill(folder, place, GONE)

    def _took_large(self, file: Large) -> None:
        self._large_at_work -= 1
        ((folder, place, name, old),) = self._places.pop(file.number)
        path = _join(folder.path, name)
        if file.error is not None:
            self._lose(path, file.error)
            self._growing.fill(folder, place, GONE)
            return
        if not file.steady:
            self._note(path, "changed", "it was written while it was read")
        if file.contradiction:
            self._note(path, "contradiction", "blocks that were said to be unchanged differ from the parent's")
        self._saved.size += file.size
        self._audit(folder, name, old, file.node)
        self._growing.fill(folder, place, file.node)

    # -- what is told

    def _audit(self, folder: Folder, name: bytes, old: Node | None, encoded: bytes) -> None:
        if old is not None and contradicts(old, encoded):
            reason = "its content is another although size, times and inode are the same"
            self._note(_join(folder.path, name), "contradiction", reason)

    def _lose(self, path: bytes, error: OSError) -> None:
        vanished = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
        self._note(path, "vanished" if vanished else "unreadable", error.strerror or str(error))

    def _note(self, path: bytes, kind: Kind, why: str) -> None:
        self._saved.problems.append(Problem(path, kind, why))

    def _report(self, path: bytes) -> None:
        if self._progress is not None:
            self._progress(Progress(self._saved.files, self._saved.size, path))


def _in_order(entries: list[os.DirEntry[str]]) -> list[os.DirEntry[str]]:
    """By the bytes of their names."""
    are_text = "".join([entry.name for entry in entries]).isascii()
    entries.sort(key=operator.attrgetter("name") if are_text else lambda entry: os.fsencode(entry.name))
    return entries


def _join(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name


def _name(folder: Folder, about: About) -> bytes:
    return folder.path.rpartition(b"/")[2] if folder.above is not None else os.fsencode(about.name)


def _reason(code: int) -> str:
    return os.strerror(code) if code > 0 else "it is no file any more"
