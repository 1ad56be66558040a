"""What no snapshot needs goes away, in two phases and without stopping anybody.

First a pack is *marked*: its entry moves to ``packs_to_delete`` of an index file, so that whoever reads the index from
now on does not count on it. Sessions that read the index before may: they are written down with the mark. The pack is
*swept* by a later prune, when those sessions have ended, their snapshots do not need it, and some time has passed by
the store's clock. A pack that is listed as live anywhere is live: a crash between two steps only makes it stay longer.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from orlop.errors import Corrupt
from orlop.snapshots import index
from orlop.snapshots.briefs import FileBrief, PackBrief, brief
from orlop.snapshots.documents import IndexFile, PackEntry
from orlop.snapshots.packs import MOST_BLOBS, SIZE, Blob, Kind, pack_key
from orlop.snapshots.ranges import read, together
from orlop.snapshots.repository import Repository, opened
from orlop.snapshots.usage import Usage, usage
from orlop.snapshots.writer import FULL_INDEX, Writer

GRACE: Final = 3600.0
_HALF: Final = 0.5
_FEW: Final = 8
"""So many small packs of a kind are worth one larger."""
_SMALL: Final = SIZE // 4

Verb = Literal["mark", "repack", "recover", "wait", "sweep"]


@dataclass(frozen=True, slots=True)
class PackState:
    """A pack as prune sees it: ``size`` bytes, ``content`` of them blobs, ``used`` of these needed and read from here.

    ``state`` is ``live`` (in an index), ``loose`` (in none) or ``marked``; then ``sessions`` are those that may still
    count on it (None: not written down yet), and ``age`` are the seconds since.
    """

    name: str
    kind: str
    size: int
    content: int
    used: int
    state: Literal["live", "loose", "marked"]
    sessions: frozenset[str] | None = None
    age: float = 0.0
    blobs: int = 0


@dataclass(frozen=True, slots=True)
class Action:
    """What is to be done with a pack, and why."""

    verb: Verb
    pack: str
    size: int
    reason: str


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was done, or with a dry run would be."""

    actions: Sequence[Action] = field(default_factory=list)

    @property
    def freed(self) -> int:
        """Bytes that were deleted."""
        return sum(action.size for action in self.actions if action.verb == "sweep")


def decide(packs: Iterable[PackState], sessions: frozenset[str], grace: float) -> list[Action]:
    """What to do, from what there is and the ``sessions`` that are at work; changes nothing."""
    packs = list(packs)
    return [*(action for pack in packs for action in _decide_one(pack, sessions, grace)), *_gather(packs)]


def prune(repository: Repository, *, grace: float = GRACE, dry_run: bool = False) -> Pruned:
    """Mark what is not needed, and sweep what was marked ``grace`` seconds ago and nobody can need any more.

    Others may save and restore meanwhile. Raises `Busy` for a second prune or beside an exclusive lock, `Corrupt` if
    the repository is damaged: then nothing is deleted.
    """
    with Writer(repository, prune=True) as writer:
        return _Prune(writer, grace).run(dry_run=dry_run)


def _decide_one(pack: PackState, sessions: frozenset[str], grace: float) -> Iterator[Action]:
    if pack.state == "marked":
        yield _about_marked(pack, sessions, grace)
    elif pack.state == "loose":
        yield Action("mark", pack.name, pack.size, "no index lists it: a save did not end, or has not yet")
    elif not pack.used:
        yield Action("mark", pack.name, pack.size, "no snapshot needs anything in it")
    elif pack.used < _HALF * pack.content:
        yield Action("repack", pack.name, pack.size, f"{pack.used} bytes of {pack.content} are needed")


def _about_marked(pack: PackState, sessions: frozenset[str], grace: float) -> Action:
    if pack.used:
        return Action("recover", pack.name, pack.size, "a snapshot that was made meanwhile needs it")
    if pack.sessions is None:
        return Action("wait", pack.name, pack.size, "who may count on it is written down now")
    present = sorted(pack.sessions & sessions)
    if present:
        return Action("wait", pack.name, pack.size, f"{len(present)} sessions from before the mark are still at work")
    if pack.age < grace:
        return Action("wait", pack.name, pack.size, f"it was marked {pack.age:.0f} seconds ago")
    return Action("sweep", pack.name, pack.size, "no snapshot and no session needs it")


def _gather(packs: Sequence[PackState]) -> Iterator[Action]:
    """Small packs, as frequent saves make them, become larger ones when there are some."""
    for kind in ("data", "tree"):
        small = [p for p in packs if p.kind == kind and p.state == "live" and p.size < _SMALL]
        small = [pack for pack in small if pack.blobs < MOST_BLOBS // 2 and pack.used >= _HALF * pack.content]
        for pack in small if len(small) >= _FEW else ():
            yield Action("repack", pack.name, pack.size, f"one of {len(small)} small packs")


_Mark = tuple[PackBrief, frozenset[str] | None, float]
"""A pack, who may still count on it (None: not written down yet), and the seconds since it was marked."""


def _both(one: _Mark, other: _Mark) -> _Mark:
    """A pack was marked, recovered, and marked again by a prune that was killed: the later mark counts."""
    sessions = None if one[1] is None or other[1] is None else one[1] | other[1]
    # The mark of a loose pack says nothing of its blobs, though an index may have come that does.
    return max(one[0], other[0], key=lambda told: told.blobs), sessions, min(one[2], other[2])


class _Prune:
    def __init__(self, writer: Writer, grace: float) -> None:
        self._writer, self._repository, self._grace = writer, writer.repository, grace
        self._files: dict[str, FileBrief] = {}
        self._seen: set[str] = set()

    def run(self, *, dry_run: bool) -> Pruned:
        # The order matters. Who is at work is asked first: a session that has ended by then has its snapshot in the
        # list that follows. Snapshots come before the index: what they need is in the index that is read after them.
        sessions = self._sessions()
        snapshots = self._repository.snapshots()
        self._seen = set(snapshots)
        self._files = self._repository.indexes.survey(brief)
        needed = usage(self._repository, [snapshot.tree for snapshot in snapshots.values()])
        actions = decide(self._states(needed), sessions, self._grace)
        if not dry_run:
            self._do(actions, needed)
        return Pruned(actions)

    # -- what there is

    def _sessions(self) -> frozenset[str]:
        return frozenset(held.session for held in self._writer.lock.others())

    def _states(self, needed: Usage) -> Iterator[PackState]:
        sizes = {info.key.rpartition("/")[2]: info.size for info in self._repository.listed("data")}
        live = {pack: told for file in self._files.values() for pack, told in file.packs.items()}
        marked = self._marked(live)
        used = self._used(needed, sizes)
        for pack, told in live.items():
            size, here = sizes.get(pack, 0), used.get(pack, 0)
            yield PackState(pack, told.kind, size, told.content, here, "live", blobs=told.blobs)
        for pack, (told, sessions, age) in marked.items():
            size, here = sizes.get(pack, 0), used.get(pack, 0)
            yield PackState(pack, told.kind, size, told.content, here, "marked", sessions, age)
        for pack in sizes.keys() - live.keys() - marked.keys():
            yield PackState(pack, "", sizes[pack], 0, 0, "loose")

    def _marked(self, live: Collection[str]) -> dict[str, _Mark]:
        found: dict[str, _Mark] = {}
        now = self._writer.lock.now()
        for name, file in self._files.items():
            packs = file.marks.keys() - live
            # Stores tell the time in seconds: what was marked just now may seem to be marked in a moment.
            age = max(0.0, now - self._repository.store.stat(f"index/{name}").modified) if packs else 0.0
            for pack in packs:
                mark = file.marks[pack], file.sessions, age
                found[pack] = _both(found[pack], mark) if pack in found else mark
        return found

    def _place(self, kind: Kind, blob: bytes) -> tuple[str, Blob] | None:
        """Where a blob is; one that is in several packs is in a live one."""
        return self._repository.indexes.live.find(kind, blob) or self._repository.indexes.marked.find(kind, blob)

    def _used(self, needed: Usage, sizes: Mapping[str, int]) -> dict[str, int]:
        used: dict[str, int] = {}
        kinds: tuple[Kind, ...] = ("data", "tree")
        for kind in kinds:
            for blob in needed.blobs(kind):
                place = self._place(kind, blob)
                if place is None or place[0] not in sizes:
                    where = "no pack" if place is None else f"pack {place[0]!r}, which is missing"
                    raise Corrupt(f"{kind} blob {blob.hex()} is needed and in {where}; nothing is pruned, check first")
                used[place[0]] = used.get(place[0], 0) + place[1].length
        return used

    # -- what is done

    def _do(self, actions: Sequence[Action], needed: Usage) -> None:
        named = {verb: {action.pack for action in actions if action.verb == verb} for verb in _VERBS}
        self._repack(named["repack"], needed)
        doomed = named["mark"] | named["repack"]
        before = dict(self._files)
        # The mark is there before the live entry goes: at no moment is the pack in no index.
        marks = self._mark(doomed)
        self._rewrite(before, doomed, named["recover"])
        self._recover_late(marks)
        self._sweep(named["sweep"])
        self._write_down_sessions()

    def _repack(self, packs: Collection[str], needed: Usage) -> None:
        for pack in self._entries(packs):
            # What is stored again meanwhile is found where it was: the index keeps the first place of a blob.
            for part in together((pack.id, blob) for blob in self._from_here(pack, needed)):
                sealed = read(self._repository.store, part)
                for blob in part.blobs:
                    # It is looked at before the only other copy goes.
                    opened(self._repository.seal, sealed[blob.id], blob, pack.id)
                    self._writer.add_sealed(blob.kind, blob.id, sealed[blob.id], blob.uncompressed, again=True)
        self._writer.flush()

    def _mark(self, doomed: set[str]) -> list[str]:
        """Write down that these packs go; returns the names of the index files that say so."""
        marks, loose = list[str](), set(doomed)
        for some in _batches(self._entries(doomed)):
            loose.difference_update(pack.id for pack in some)
            marks.append(self._put(IndexFile([], packs_to_delete=some)))
        if loose:
            marks.append(self._put(IndexFile([], packs_to_delete=[PackEntry(pack, []) for pack in sorted(loose)])))
        return marks

    def _rewrite(self, before: Mapping[str, FileBrief], doomed: set[str], recovered: set[str]) -> None:
        """The live entries without the doomed, and with the recovered."""
        live = {pack for file in before.values() for pack in file.packs} - doomed
        back, gone = recovered - live, recovered | live | doomed
        for name, told in before.items():
            if told.packs.keys() & doomed or told.marks.keys() & gone:
                file = self._repository.indexes.file(name)
                packs = [pack for pack in file.packs or () if pack.id not in doomed]
                packs += [pack for pack in file.packs_to_delete or () if pack.id in back and pack.blobs]
                marks = [pack for pack in file.packs_to_delete or () if pack.id not in gone]
                self._replace(name, IndexFile(packs, packs_to_delete=marks, orlop_sessions=file.orlop_sessions))

    def _recover_late(self, marks: Sequence[str]) -> None:
        """Whoever commits from now on sees the marks and keeps what he needs; for those until now it is done here."""
        snapshots = self._repository.snapshots()
        late = [snapshot.tree for name, snapshot in snapshots.items() if name not in self._seen]
        if not late or not marks:
            return
        live = self._repository.indexes.look()
        needed = usage(self._repository, late)
        for name in marks:
            packs = self._repository.indexes.file(name).packs_to_delete or []
            back = [
                pack
                for pack in packs
                if any(needed.has(b.kind, b.id) and not live.has(b.kind, b.id) for b in index.blobs(pack, name))
            ]
            if back:
                self._put(IndexFile(back))

    def _sweep(self, packs: set[str]) -> None:
        if not packs:
            return
        self._writer.lock.check()
        for pack in sorted(packs):
            self._repository.store.delete(pack_key(pack))
        for name, told in list(self._files.items()):
            if told.marks.keys() & packs:
                file = self._repository.indexes.file(name)
                marks = [pack for pack in file.packs_to_delete or () if pack.id not in packs]
                self._replace(name, IndexFile(file.packs, packs_to_delete=marks, orlop_sessions=file.orlop_sessions))

    def _write_down_sessions(self) -> None:
        # Only now, when nobody can read an index without the marks any more.
        unsaid = [name for name, told in self._files.items() if told.marks and told.sessions is None]
        if unsaid:
            sessions = sorted(self._sessions())
            for name in unsaid:
                file = self._repository.indexes.file(name)
                marks = file.packs_to_delete
                self._replace(name, IndexFile(file.packs, packs_to_delete=marks, orlop_sessions=sessions))

    # -- index files

    def _entries(self, packs: Collection[str]) -> Iterator[PackEntry]:
        """What is listed of these packs, each once; one index file after another is in memory."""
        left = set(packs)
        for name, told in list(self._files.items()):
            if left & (told.packs.keys() | told.marks.keys()):
                file = self._repository.indexes.file(name)
                for pack in [*(file.packs or ()), *(file.packs_to_delete or ())]:
                    # The mark of a loose pack says nothing of its blobs, though an index may have come that does.
                    if pack.id in left and pack.blobs:
                        left.remove(pack.id)
                        yield pack

    def _from_here(self, pack: PackEntry, needed: Usage) -> list[Blob]:
        """The blobs of a pack that are needed, and read from there."""
        return [
            blob
            for blob in index.blobs(pack, pack.id)
            if needed.has(blob.kind, blob.id) and (self._place(blob.kind, blob.id) or ("",))[0] == pack.id
        ]

    def _replace(self, name: str, file: IndexFile) -> None:
        if file.packs or file.packs_to_delete:
            self._put(file)
        self._repository.remove("index", name)
        del self._files[name]

    def _put(self, file: IndexFile) -> str:
        name, _ = self._repository.put("index", msgspec.json.encode(file))
        self._files[name] = brief(file)
        return name


def _batches(packs: Iterable[PackEntry]) -> Iterator[list[PackEntry]]:
    """As many packs at a time as an index file has."""
    batch, blobs = list[PackEntry](), 0
    for pack in packs:
        batch.append(pack)
        blobs += len(pack.blobs or ())
        if blobs >= FULL_INDEX:
            yield batch
            batch, blobs = [], 0
    if batch:
        yield batch


_VERBS: Final[tuple[Verb, ...]] = ("mark", "repack", "recover", "wait", "sweep")
