"""What a snapshot refers to and nobody wrote for it: that it is there when one looks, and stays there.

A prune marks packs that no snapshot needs, and deletes them later. Whoever was told that a blob is there may refer to
it; so packs that were marked meanwhile, and that the new snapshot may refer to, are listed as live again.
"""

from collections.abc import Iterable, Sequence, Set

import msgspec

from orlop.errors import Corrupt
from orlop.snapshots.documents import IndexFile, PackEntry, SnapshotFile
from orlop.snapshots.index import Index
from orlop.snapshots.packs import Kind
from orlop.snapshots.repository import Repository
from orlop.snapshots.usage import usage


class Reliance:
    """What one session of writing relies on. Threads may share it."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._before, self._known, self._expected = Index(), set[str](), set[str]()
        self._relied: set[int] = set()
        self._relies_unasked = False
        self._own: set[str] = set()

    def begin(self, before: Index) -> None:
        """``before`` is what was live when the lock had been taken."""
        self._before = before
        self._known, self._expected = set(self._repository.indexes.plain), set(self._repository.indexes.names)

    def has(self, kind: Kind, blob: bytes) -> bool:
        """Whether the blob was there before. Whoever is told that it was may refer to it."""
        pack = self._before.pack_number(kind, blob)
        if pack is None:
            return False
        self._relied.add(pack)
        return True

    def missing(self, kind: Kind, blobs: Sequence[str]) -> list[str]:
        """Those of many blobs that were not there; the others may be referred to."""
        numbers = self._before.pack_numbers(kind, map(bytes.fromhex, blobs))
        self._relied.update(number for number in numbers if number is not None)
        if None not in numbers:
            return []
        return [blob for blob, number in zip(blobs, numbers, strict=True) if number is None]

    def has_whole(self, snapshot: str) -> bool:
        """Whether this host knows that all blobs of a snapshot are there; whoever is told so may refer to them.

        Not while a pack is listed both as live and as marked (a prune is at work, or was killed): what is relied on
        would have to be found out before the commit in any case.
        """
        indexes = self._repository.indexes
        if self._before.shares_packs(indexes.marked) or not self._repository.whole.has(snapshot, self._expected):
            return False
        self._relies_unasked = True
        return True

    def sizes(self, kind: Kind, blobs: Sequence[str]) -> list[int | None]:
        """Bytes of content of blobs that were there before; as with `has`, those may be referred to."""
        places = self._before.packs_and_sizes(kind, map(bytes.fromhex, blobs))
        self._relied.update(place[0] for place in places if place is not None)
        return [None if place is None else place[1] for place in places]

    def wrote_pack(self, pack: str) -> None:
        """The pack is ours."""
        self._own.add(pack)

    def wrote_index(self, name: str) -> None:
        """The index file is ours. It marks nothing: `keep` need not read it, which takes the memory of all of them."""
        self._known.add(name)
        self._expected.add(name)

    def keep(self, snapshot: SnapshotFile) -> Set[str]:
        """Packs that a prune has marked meanwhile, and that we refer to, are listed as live again: that counts more.

        Returns the names of all index files that had to be looked at for that.

        A mark without blobs is of a pack of ours that had no index yet: the one we wrote since lists it as live.
        One listing is enough if all that we knew is there. A prune that has looked for snapshots before ours was there
        had deleted what lists our packs before that; one that looks later sees ours, and keeps what it needs itself.
        """
        files = self._repository.indexes.files(self._known, self._expected)
        marked = [pack for file in files.values() for pack in file.packs_to_delete or () if pack.blobs]
        back = self._relied_among(marked, snapshot) if marked else []
        if back:
            self._repository.put("index", msgspec.json.encode(IndexFile(back)))
        return files.keys()

    def remember(self, snapshot: str, others: Set[str]) -> None:
        """The snapshot is whole with the index files in which its blobs were found, or are now; ``others`` are there.

        Not if some were replaced since we came in: nobody has the names of all any more that we were told of.
        """
        indexes = self._repository.indexes
        names = indexes.names
        if indexes.live is self._before:
            self._repository.whole.add(snapshot, names, others)

    def _relied_among(self, marked: Iterable[PackEntry], snapshot: SnapshotFile) -> list[PackEntry]:
        """Those of the packs that the snapshot may refer to."""
        known = self._own.union(self._before.packs())
        marked = [pack for pack in marked if pack.id in known]
        if marked and self._relies_unasked:
            self._ask_late(snapshot)
        relied = self._own.union(self._before.pack_name(number) for number in self._relied)
        return [pack for pack in marked if pack.id in relied]

    def _ask_late(self, snapshot: SnapshotFile) -> None:
        """What the snapshot needs, and nobody asked for, is relied on: by all of its trees, which is dear, but rare.

        To rely on more would keep prunes from freeing anything while somebody saves all the time.
        """
        self._relies_unasked = False
        try:
            needed = usage(self._repository, [snapshot.tree])
        except Corrupt:
            self._relied.update(range(len(self._before.ids())))
            return
        kinds: tuple[Kind, ...] = ("data", "tree")
        for kind in kinds:
            numbers = self._before.pack_numbers(kind, needed.blobs(kind))
            self._relied.update(number for number in numbers if number is not None)
