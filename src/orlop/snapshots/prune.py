"""What no snapshot needs goes away, in two phases and without stopping anybody.

First a pack is *marked*: its entry moves to ``packs_to_delete`` of an index file, so that whoever reads the index from
now on does not count on it. Sessions that read the index before may: they are written down with the mark. The pack is
*swept* by a later prune, when those sessions have ended, their snapshots do not need it, and some time has passed by
the store's clock. A pack that is listed as live anywhere is live: a crash between two steps only makes it stay longer.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from orlop.errors import Corrupt
from orlop.snapshots import index
from orlop.snapshots.briefs import PackBrief
from orlop.snapshots.documents import IndexFile, PackEntry
from orlop.snapshots.packs import Blob, Kind, pack_key
from orlop.snapshots.pruneindex import PruneIndex
from orlop.snapshots.pruneplan import VERBS, Action, PackState, decide
from orlop.snapshots.ranges import read, together
from orlop.snapshots.repository import Repository, opened
from orlop.snapshots.usage import Usage, usage
from orlop.snapshots.writer import Writer

GRACE: Final = 3600.0
"""Seconds that a pack stays marked at least."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was done, or with a dry run would be."""

    actions: Sequence[Action] = field(default_factory=list)

    @property
    def freed(self) -> int:
        """Bytes that were deleted."""
        return sum(action.size for action in self.actions if action.verb == "sweep")


def prune(repository: Repository, *, grace: float = GRACE, dry_run: bool = False) -> Pruned:
    """Mark what is not needed, and sweep what was marked ``grace`` seconds ago and nobody can need any more.

    Others may save and restore meanwhile. Raises `Busy` for a second prune or beside an exclusive lock, `Corrupt` if
    the repository is damaged: then nothing is deleted.
    """
    with Writer(repository, prune=True) as writer:
        return _Prune(writer, grace).run(dry_run=dry_run)


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
        self._index = PruneIndex(self._repository)
        self._seen: set[str] = set()

    def run(self, *, dry_run: bool) -> Pruned:
        # The order matters. Who is at work is asked first: a session that has ended by then has its snapshot in the
        # list that follows. Snapshots come before the index: what they need is in the index that is read after them.
        sessions = self._sessions()
        snapshots = self._repository.snapshots()
        self._seen = set(snapshots)
        self._index.survey()
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
        live = {pack: told for file in self._index.files.values() for pack, told in file.packs.items()}
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
        for name, file in self._index.files.items():
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
        named = {verb: {action.pack for action in actions if action.verb == verb} for verb in VERBS}
        self._repack(named["repack"], needed)
        doomed = named["mark"] | named["repack"]
        before = list(self._index.files)
        # The mark is there before the live entry goes: at no moment is the pack in no index.
        marks = self._index.mark(doomed)
        self._index.rewrite(before, doomed, named["recover"])
        self._recover_late(marks)
        self._sweep(named["sweep"])
        # Only now, when nobody can read an index without the marks any more.
        self._index.write_down(self._sessions)

    def _repack(self, packs: Collection[str], needed: Usage) -> None:
        for pack in self._index.entries(packs):
            # What is stored again meanwhile is found where it was: the index keeps the first place of a blob.
            for part in together((pack.id, blob) for blob in self._from_here(pack, needed)):
                sealed = read(self._repository.store, part)
                for blob in part.blobs:
                    # It is looked at before the only other copy goes.
                    opened(self._repository.seal, sealed[blob.id], blob, pack.id)
                    self._writer.add_sealed(blob.kind, blob.id, sealed[blob.id], blob.uncompressed, again=True)
        self._writer.flush()

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
                self._index.put(IndexFile(back))

    def _sweep(self, packs: set[str]) -> None:
        if not packs:
            return
        self._writer.lock.check()
        for pack in sorted(packs):
            self._repository.store.delete(pack_key(pack))
        self._index.forget(packs)

    def _from_here(self, pack: PackEntry, needed: Usage) -> list[Blob]:
        """The blobs of a pack that are needed, and read from there."""
        return [
            blob
            for blob in index.blobs(pack, pack.id)
            if needed.has(blob.kind, blob.id) and (self._place(blob.kind, blob.id) or ("",))[0] == pack.id
        ]
