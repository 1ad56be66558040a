"""A folder into a repository: everything that changed since the parent snapshot, and nothing twice.

One thread walks, in the order of names, and gives away what has to be read (`orlop.snapshots.reads`); what comes back
fills the places of a folder, and a folder whose places are full becomes a tree. So what is in memory are the folders on
the way and the batches at work, however many files there are.
"""

import operator
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orlop.errors import Invalid, Unavailable
from orlop.kernel import heap
from orlop.snapshots import names, nodes, source, times
from orlop.snapshots.changes import Changed
from orlop.snapshots.chunks import MIN
from orlop.snapshots.documents import SnapshotFile
from orlop.snapshots.growing import GONE, Folder, Growing
from orlop.snapshots.locks import host_name, user_name
from orlop.snapshots.nodes import Node
from orlop.snapshots.parent import Parent, Same
from orlop.snapshots.reads import Reads
from orlop.snapshots.report import Progress
from orlop.snapshots.repository import Repository
from orlop.snapshots.saved import INCOMPLETE, Saved
from orlop.snapshots.writer import Writer


@dataclass(frozen=True, slots=True)
class About:
    """What a snapshot says of itself: the folder's name in it, when it was (nanoseconds since 1970), tags."""

    name: str
    when: int
    hostname: str = field(default_factory=host_name)
    tags: Sequence[str] = ()


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


class _Save:
    def __init__(self, writer: Writer, root: int, about: About, changed: Changed | None, parent: Parent,
                 progress: Callable[[Progress], None] | None, count: int) -> None:  # fmt: skip
        self._writer, self._about, self._root = writer, about, root
        self._progress, self._parent = progress, parent
        self._saved, self._growing = Saved(), Growing(writer, old_is_whole=parent.is_whole)
        self._reads = Reads(writer, root, self._growing, self._saved, changed, count=count)

    def run(self) -> Saved:
        with self._reads:
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

    def _walk(self, before: Node | None) -> None:
        folders = [Folder(b"", None, 0, before)]
        while folders:
            folder = folders.pop()
            self._visit(folder, folders)
            self._reads.go_on()
        self._reads.finish()

    def _visit(self, folder: Folder, folders: list[Folder]) -> None:
        is_known = False
        try:
            with source.beneath(self._root, folder.path) as fd:
                status, old = os.fstat(fd), self._parent.entries(folder)
                if not self._parent.is_as_it_was(folder, status):
                    folder.node = nodes.node(_name(folder, self._about), status, source.attributes(fd))
                is_known = True
                self._list(folder, fd, old, folders)
        except OSError as error:
            if folder.above is None:
                raise Unavailable(f"the folder cannot be read: {error}") from error
            self._saved.lose(folder.path, error)
            if not is_known:
                self._growing.fill(folder.above, folder.place, GONE)
                return
        self._report(folder.path)
        self._growing.finish(folder)

    def _list(self, folder: Folder, fd: int, old: dict[str, Node], folders: list[Folder]) -> None:
        with os.scandir(fd) as found:
            listed = _in_order(list(found))
        below, entries, stays = [], folder.entries, self._parent.stays
        unchanged = size = 0
        for entry in listed:
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError as error:
                self._saved.lose(folder.beneath(os.fsencode(entry.name)), error)
                continue
            before = old.get(entry.name)
            # Hardly anything is done for a file that is as it was: of most folders these are all.
            if before is not None and stays(folder, before, status):
                entries.append(before)
                unchanged += 1
                size += before.size
                continue
            name = os.fsencode(entry.name)
            entries.append(None)
            if stat.S_ISDIR(status.st_mode):
                folder.at_work += 1
                below.append(Folder(folder.beneath(name), folder, len(entries) - 1, before))
            else:
                self._file(folder, fd, name, status, before)
        folders.extend(reversed(below))
        self._saved.files += unchanged
        self._saved.count_unchanged(unchanged, size)

    def _file(self, folder: Folder, fd: int, name: bytes, status: os.stat_result, old: Node | None) -> None:
        place = len(folder.entries) - 1
        self._saved.files += 1
        if not stat.S_ISREG(status.st_mode):
            folder.entries[place] = self._special(folder, fd, name, status)
            return
        if old is not None and self._parent.is_same(folder.beneath(name), status, old):
            folder.entries[place] = self._renewed(folder, fd, name, old)
            return
        folder.at_work += 1
        if status.st_size > MIN:
            self._reads.large(folder, place, name, old)
        else:
            self._reads.small(folder, place, name, old, status.st_size)

    def _special(self, folder: Folder, fd: int, name: bytes, status: os.stat_result) -> bytes:
        try:
            found = source.other(fd, name, status)
        except OSError as error:
            self._saved.lose(folder.beneath(name), error)
            return GONE
        return GONE if found is None else nodes.encode(found)

    def _renewed(self, folder: Folder, fd: int, name: bytes, old: Node) -> Node | bytes:
        """The parent's content, with all else as it is now."""
        try:
            with source.opened(fd, name) as (file, now):
                entry = source.file_node(file, name, now, old.size)
        except OSError as error:
            self._saved.lose(folder.beneath(name), error)
            return GONE
        entry.content = old.content
        self._saved.count_unchanged(1, old.size)
        return entry

    def _report(self, path: bytes) -> None:
        if self._progress is not None:
            self._progress(Progress(self._saved.files, self._saved.size, path))


def _in_order(entries: list[os.DirEntry[str]]) -> list[os.DirEntry[str]]:
    """By the bytes of their names."""
    are_text = "".join([entry.name for entry in entries]).isascii()
    entries.sort(key=operator.attrgetter("name") if are_text else lambda entry: os.fsencode(entry.name))
    return entries


def _name(folder: Folder, about: About) -> bytes:
    return folder.path.rpartition(b"/")[2] if folder.above is not None else os.fsencode(about.name)
