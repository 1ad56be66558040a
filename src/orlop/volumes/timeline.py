"""The snapshots of volumes: made while they are in use, found again, and brought back.

A snapshot is one of restic's, in a repository that many volumes and hosts may share; its tags say which volume it is
of, and how its files were held still (`orlop.volumes.sources`). It is there, whatever is killed, from the moment that
`Timeline.take` returns, and until somebody forgets it.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol

from orlop.errors import Invalid, NotFound
from orlop.snapshots.documents import SnapshotFile
from orlop.snapshots.locks import host_name
from orlop.snapshots.report import Progress, refuse
from orlop.snapshots.repository import Repository
from orlop.snapshots.restore import Restored, restore
from orlop.snapshots.save import About, save
from orlop.snapshots.saved import INCOMPLETE, Saved
from orlop.state import Row
from orlop.volumes import folders, held, sources
from orlop.volumes.comparing import by_blocks
from orlop.volumes.driver import Stillable
from orlop.volumes.host import FROM, noted, volume
from orlop.volumes.service import VolumeService
from orlop.volumes.sources import Source, Still

LATEST = "latest"
_VOLUME, _HOW, _AHEAD, _NOTE = "orlop.volume=", "orlop.how=", "orlop.ahead", "orlop.note="
_SHORT = 8
_Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment of one volume. ``how`` is a word of `orlop.volumes.sources`, ``host`` where it was made."""

    id: str
    volume: str
    time: datetime
    how: str
    host: str
    notes: tuple[str, ...]
    file: SnapshotFile = field(repr=False)

    @property
    def short(self) -> str:
        """As much of the id as people read."""
        return self.id[:_SHORT]

    @property
    def is_complete(self) -> bool:
        """Whether every file could be read."""
        return INCOMPLETE not in (self.file.tags or ())

    @property
    def reference(self) -> str:
        """What commands understand."""
        return f"{self.volume}@{self.short}"


class Hooks(Protocol):
    """What a volume's users are told around the moment of a snapshot."""

    def before(self) -> bool:
        """The moment is near; whether anybody was told. What it raises ends the snapshot."""

    def after(self) -> None:
        """The moment is over, or there will be none. It raises nothing: a snapshot that is good must not be lost."""


class NoHooks:
    """Nobody has to be told."""

    def before(self) -> bool:
        """See `Hooks`."""
        return False

    def after(self) -> None:
        """See `Hooks`."""


class Timeline:
    """The snapshots of a host's volumes in one repository, which is opened when it is needed."""

    def __init__(self, service: VolumeService, opened: Callable[[], Repository], address: str = ""):
        """``opened`` opens the repository, or makes it; ``address`` says which, empty for the host's own."""
        self.service, self._opened, self.address = service, opened, address

    @cached_property
    def repository(self) -> Repository:
        """The repository, open."""
        return self._opened()

    # looking

    def all(self, name: str | None = None) -> list[Snapshot]:
        """Every snapshot, or those of the volume ``name``, the oldest first; others' snapshots are not shown."""
        found = (_snapshot(id_, file) for id_, file in self.repository.snapshots().items())
        return sorted((each for each in found if each and name in (None, each.volume)), key=lambda each: each.time)

    def own(self, name: str | None = None) -> list[Snapshot]:
        """As `all`, those that were made on this host: what others made is theirs to keep or forget."""
        return [each for each in self.all(name) if each.host == host_name()]

    def find(self, reference: str) -> Snapshot:
        """The snapshot that ``VOLUME@ID`` names, by the beginning of an id or ``latest``, or an id alone.

        Raises `NotFound`, and `Invalid` if it could be several.
        """
        name, at, wish = reference.rpartition("@")
        found = self.all(name if at else None)
        if wish != LATEST:
            found = [each for each in found if each.id.startswith(wish.lower())]
        elif at:
            found = found[-1:]
        if not found or not wish:
            raise NotFound(f"no snapshot {reference!r}; 'orlop snapshot ls' shows which there are")
        if len(found) > 1:
            raise Invalid(f"{reference!r} could be {found[0].reference} or {found[1].reference}; say more of the id")
        return found[0]

    # making

    def take(
        self,
        name: str,
        *,
        paused: bool = False,
        full: bool = False,
        notes: Sequence[str] = (),
        progress: _Report | None = None,
        hooks: Hooks | None = None,
    ) -> tuple[Snapshot, Saved]:
        """Make a snapshot of the volume ``name``, in use or not; ``paused`` lets its containers wait if need be.

        ``full`` reads every file, whatever seems to be as it was.
        """
        for note in notes:
            check_note(note)
        with self.service.lock(f"{name}@"), held.mounted(self.service, name, "snapshot") as folder:
            row = self.service.get(name)
            return self.save(row, self.source(row, folder, paused=paused), notes, progress, hooks, full=full)

    def save(
        self,
        row: Row,
        source: Source,
        notes: Sequence[str],
        progress: _Report | None,
        hooks: Hooks | None = None,
        *,
        full: bool = False,
    ) -> tuple[Snapshot, Saved]:
        """Make a snapshot of ``row``, which is mounted and which nobody else takes one of; ``full``: see `take`."""
        parent = None if full else self._parent(row)
        ahead = self._ahead(row, source, parent, progress)
        with still_files(source, hooks or NoHooks()) as still:
            tags = [_VOLUME + row.name, _HOW + still.how, *(_NOTE + note for note in notes)]
            about, comparing = About(row.name, self._when(), tags=tags), by_blocks(source, parent)
            saved = save(
                self.repository,
                still.folder,
                about,
                parent=ahead or parent,
                changed=comparing,
                clones=still.are_clones,
                progress=progress,
            )
        source.settle(saved.snapshot)
        if ahead:
            self._forget_ahead(row)
        made = _known(saved.snapshot, self.repository.snapshot(saved.snapshot))
        self._remember(row, made)
        return made, saved

    def forget(self, snapshot: Snapshot) -> None:
        """Delete a snapshot; what only it needed is deleted by a prune."""
        self.repository.forget(snapshot.id)

    # bringing back

    def restore(
        self, snapshot: Snapshot, folder: Path, path: str = "", *, exact: bool = False, progress: _Report | None = None
    ) -> Restored:
        """Let ``folder`` have what ``path`` (all if empty) has in the snapshot; ``exact``: and nothing else.

        All of it is on the disk afterwards.
        """
        inside = "/".join(part for part in (root(snapshot), path.strip("/")) if part)
        done = restore(self.repository, snapshot.file, folder, path=inside, delete=exact, progress=progress)
        folders.sync(folder)
        return done

    def fill(self, row: Row, folder: Path, progress: _Report | None = None) -> None:
        """Let a new volume begin with the files of the snapshot that its option ``from`` names."""
        done = self.restore(self.find(row.options[FROM]), folder, exact=True, progress=progress)
        refuse(done.problems, row.options[FROM])

    def source(self, row: Row, folder: Path, *, paused: bool = False) -> Source:
        """How to read the files of ``row``, which is mounted at ``folder``."""
        users = partial(self.service.attachments.processes, row)
        driver = self.service.driver(row.driver)
        found = driver.source(volume(row), folder, users) if isinstance(driver, Stillable) else None
        return found or sources.plain(folder, users, paused=paused)

    def _when(self) -> int:
        return int(self.service.host.now() * 1e9)

    def _remember(self, row: Row, made: Snapshot) -> None:
        where = {"repository": self.address} if self.address else {}
        last = {"reference": made.reference, "time": made.time.isoformat(timespec="seconds"), **where}
        details = {"id": made.short, "how": made.how, **where}
        with noted(self.service.state, self.service.host, "snapshot", row, details) as change:
            change.snapshot(row.key, last)

    def _parent(self, row: Row) -> str | None:
        """The newest snapshot of the volume that was made here: only this host's inodes mean anything."""
        here = self.own(row.name)
        return here[-1].id if here else None

    def _forget_ahead(self, row: Row) -> None:
        """What was saved ahead has served; also what a process that was killed has left."""
        for id_, file in self.repository.snapshots().items():
            ours = file.hostname == host_name() and file.paths == [f"/{row.name}"]
            if ours and _AHEAD in (file.tags or []):
                self.repository.forget(id_)

    def _ahead(self, row: Row, source: Source, parent: str | None, progress: _Report | None) -> str | None:
        """Save as much as can be before anybody has to wait; the snapshot is known to nobody, and goes again."""
        folder = source.ahead()
        if folder is None:
            return None
        about = About(row.name, self._when(), tags=[_AHEAD])
        return save(self.repository, folder, about, parent=parent, progress=progress).snapshot


@contextmanager
def still_files(source: Source, hooks: Hooks) -> Iterator[Still]:
    """The files of one moment. Whoever waits is told as soon as he need not, whatever happens."""
    waiting = True
    try:
        told = hooks.before()
        with source.still() as still:
            if still.is_copy:
                waiting = False
                hooks.after()
            yield replace(still, how=f"{still.how}+hooks") if told else still
    finally:
        if waiting:
            hooks.after()


def check_note(note: str) -> str:
    """``note`` if a tag can hold it; raises `Invalid`."""
    if "," in note or not note.isprintable() or not note:
        raise Invalid(f"note {note!r} has a comma, a line break or nothing in it; write it without")
    return note


def _snapshot(id_: str, file: SnapshotFile) -> Snapshot | None:
    """None for what is no snapshot of a volume."""
    tags = file.tags or []
    names = [tag.removeprefix(_VOLUME) for tag in tags if tag.startswith(_VOLUME)]
    if not names:
        return None
    how = next((tag.removeprefix(_HOW) for tag in tags if tag.startswith(_HOW)), "")
    notes = tuple(tag.removeprefix(_NOTE) for tag in tags if tag.startswith(_NOTE))
    return Snapshot(id_, names[0], _time(file.time), how, file.hostname, notes, file)


def _known(id_: str, file: SnapshotFile) -> Snapshot:
    found = _snapshot(id_, file)
    assert found is not None  # noqa: S101 - it was made here
    return found


def _time(text: str) -> datetime:
    """RFC 3339 with as many digits of a second as restic likes."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))


def root(snapshot: Snapshot) -> str:
    """The folder in the snapshot that has the volume's files."""
    return snapshot.file.top or snapshot.volume
