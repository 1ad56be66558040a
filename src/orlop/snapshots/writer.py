"""Blobs into a repository, so that nothing is acknowledged before it is durable: packs, then indexes, then snapshot.

A `Writer` holds the shared lock. Whoever adds a blob hands over its sealed form; the writer puts blobs into packs,
stores packs by a few threads, and writes the index of those that are stored.
"""

import hashlib
import threading
from collections.abc import Iterable, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Self

import msgspec

from orlop.errors import Corrupt
from orlop.snapshots import index
from orlop.snapshots.documents import IndexFile, PackEntry, SnapshotFile
from orlop.snapshots.entering import enter
from orlop.snapshots.index import Index
from orlop.snapshots.locks import Lock
from orlop.snapshots.packs import Kind, PackBuilder, pack_key
from orlop.snapshots.repository import VERSION, Repository
from orlop.snapshots.usage import usage

_UPLOADS: Final = 2
"""Packs that are on their way at once; each is in memory until it is stored."""
FULL_INDEX: Final = 20_000
"""Blobs after which an index file is written: about 2 MB before compression."""


class Writer:
    """One session of writing; a context. Threads may share it.

    Leaving the context without `commit` leaves packs that nothing refers to: a prune takes them away.
    """

    def __init__(self, repository: Repository, *, prune: bool = False) -> None:
        self.repository = repository
        self.lock, self._is_prune = Lock(repository, prune=prune), prune
        self.stored_bytes = 0
        self._before, self._known, self._expected = Index(), set[str](), set[str]()
        self._relied: set[int] = set()
        self._relies_unasked = False
        self._own: set[str] = set()
        self._builders: dict[Kind, PackBuilder] = {"data": PackBuilder("data"), "tree": PackBuilder("tree")}
        self._underway: dict[str, set[bytes]] = {"data": set(), "tree": set()}
        self._unindexed: list[PackEntry] = []
        self._unindexed_blobs = 0
        self._guard = threading.RLock()
        self._room = threading.BoundedSemaphore(_UPLOADS)
        self._uploads: list[Future[None]] = []
        self._threads = ThreadPoolExecutor(_UPLOADS, thread_name_prefix="packs")

    def __enter__(self) -> Self:
        """Takes the lock, and then the index: what a prune has marked until now does not count as there.

        A prune looks at the index itself, and relies on nothing that is there.
        """
        if self._is_prune:
            self.lock.__enter__()
            return self
        self._before = enter(self.lock, self.repository)
        self._known, self._expected = set(self.repository.indexes.plain), set(self.repository.indexes.names)
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        self.lock.__exit__()

    def has(self, kind: Kind, blob: bytes) -> bool:
        """Whether the blob is there, or on its way. Whoever is told that it is may refer to it."""
        if blob in self._underway[kind]:
            return True
        pack = self._before.pack_number(kind, blob)
        if pack is None:
            return False
        self._relied.add(pack)
        return True

    def has_all(self, kind: Kind, blobs: Sequence[str]) -> bool:
        """The same of many blobs at once."""
        numbers = self._before.pack_numbers(kind, map(bytes.fromhex, blobs))
        self._relied.update(number for number in numbers if number is not None)
        return None not in numbers or all(
            number is not None or self.has(kind, bytes.fromhex(blob))
            for blob, number in zip(blobs, numbers, strict=True)
        )

    def has_whole(self, snapshot: str) -> bool:
        """Whether this host knows that all blobs of a snapshot are there; whoever is told so may refer to them.

        Not while a pack is listed both as live and as marked (a prune is at work, or was killed): what is relied on
        would have to be found out before the commit in any case.
        """
        indexes = self.repository.indexes
        if self._before.shares_packs(indexes.marked) or not self.repository.whole.has(snapshot, self._expected):
            return False
        self._relies_unasked = True
        return True

    def sizes(self, kind: Kind, blobs: Sequence[str]) -> list[int | None]:
        """Bytes of content of blobs that were there before; as with `has`, those may be referred to."""
        places = self._before.packs_and_sizes(kind, map(bytes.fromhex, blobs))
        self._relied.update(place[0] for place in places if place is not None)
        return [None if place is None else place[1] for place in places]

    def add(self, kind: Kind, plain: bytes) -> bytes:
        """Store a blob unless it is there; returns its id."""
        blob = hashlib.sha256(plain).digest()
        if not self.has(kind, blob):
            self.add_sealed(kind, blob, *self.repository.seal.blob(plain, compress=self.compress))
        return blob

    def add_sealed(self, kind: Kind, blob: bytes, content: bytes | memoryview, uncompressed: int, *,
                   again: bool = False) -> bool:  # fmt: skip
        """Store a blob that is sealed already; False if it is there, unless it is to be stored ``again``.

        Waits while enough packs are on their way; raises what went wrong with one of them.
        """
        with self._guard:
            if not again and self.has(kind, blob):
                return False
            self._underway[kind].add(blob)
            builder = self._builders[kind]
            builder.add(blob, content, uncompressed)
            if builder.is_full:
                self._send(kind)
        return True

    def add_small(self, blobs: Iterable[tuple[bytes, int, int]], content: bytes) -> None:
        """Store data blobs of which ``content`` has the sealed forms, one after another: (id, length, uncompressed)."""
        start, view, underway = 0, memoryview(content), self._underway["data"]
        with self._guard:
            builder = self._builders["data"]
            for blob, length, uncompressed in blobs:
                if not self.has("data", blob):
                    underway.add(blob)
                    builder.add(blob, view[start : start + length], uncompressed)
                start += length
            if builder.is_full:
                self._send("data")

    @property
    def compress(self) -> bool:
        """Whether the repository's version knows compression."""
        return self.repository.config.version >= VERSION

    def flush(self) -> None:
        """Everything that was added is stored and indexed afterwards."""
        with self._guard:
            for kind in self._builders:
                if self._builders[kind].blobs:
                    self._send(kind)
            uploads, self._uploads = self._uploads, []
        for upload in uploads:
            upload.result()
        self._write_index()

    def commit(self, snapshot: SnapshotFile) -> str:
        """Make a snapshot of what was added, or was said to be there; returns its id.

        Raises `Busy` if the lock was lost meanwhile.
        """
        self.flush()
        self._keep(snapshot)
        # Not beside it: whoever falls asleep in between must not commit when he wakes.
        self.lock.check()
        name, _ = self.repository.put("snapshots", msgspec.json.encode(snapshot))
        # Once more, for a mark that came in between; one that comes from now on sees the snapshot.
        others = self._keep(snapshot)
        self.repository.indexes.keep()
        self._remember(name, others)
        return name

    def _remember(self, snapshot: str, others: Set[str]) -> None:
        """The snapshot is whole with the index files in which its blobs were found, or are now; ``others`` are there.

        Not if some were replaced since we came in: nobody has the names of all any more that we were told of.
        """
        indexes = self.repository.indexes
        names = indexes.names
        if indexes.live is self._before:
            self.repository.whole.add(snapshot, names, others)

    def _keep(self, snapshot: SnapshotFile) -> Set[str]:
        """Packs that a prune has marked meanwhile, and that we refer to, are listed as live again: that counts more.

        Returns the names of all index files that had to be looked at for that.

        A mark without blobs is of a pack of ours that had no index yet: the one we wrote since lists it as live.
        One listing is enough if all that we knew is there. A prune that has looked for snapshots before ours was there
        had deleted what lists our packs before that; one that looks later sees ours, and keeps what it needs itself.
        """
        files = self.repository.indexes.files(self._known, self._expected)
        marked = [pack for file in files.values() for pack in file.packs_to_delete or () if pack.blobs]
        back = self._relied_among(marked, snapshot) if marked else []
        if back:
            self.repository.put("index", msgspec.json.encode(IndexFile(back)))
        return files.keys()

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
            needed = usage(self.repository, [snapshot.tree])
        except Corrupt:
            self._relied.update(range(len(self._before.ids())))
            return
        kinds: tuple[Kind, ...] = ("data", "tree")
        for kind in kinds:
            numbers = self._before.pack_numbers(kind, needed.blobs(kind))
            self._relied.update(number for number in numbers if number is not None)

    def _send(self, kind: Kind) -> None:
        builder, self._builders[kind] = self._builders[kind], PackBuilder(kind)
        for upload in [upload for upload in self._uploads if upload.done()]:
            self._uploads.remove(upload)
            upload.result()
        self._room.acquire()
        self._uploads.append(self._threads.submit(self._store, builder))

    def _store(self, builder: PackBuilder) -> None:
        try:
            pack, content = builder.finish(self.repository.seal)
            info = self.repository.store.write(pack_key(pack), content)
        finally:
            self._room.release()
        with self._guard:
            self.stored_bytes += info.size
            self._own.add(pack)
            self._unindexed.append(index.entry(pack, builder.blobs))
            self._unindexed_blobs += len(builder.blobs)
            if self._unindexed_blobs < FULL_INDEX:
                return
        self._write_index()

    def _write_index(self) -> None:
        with self._guard:
            entries, self._unindexed, self._unindexed_blobs = self._unindexed, [], 0
        if entries:
            file = IndexFile(entries)
            name, _ = self.repository.put("index", msgspec.json.encode(file))
            # It marks nothing: `_keep` need not read it, which would take the memory of all of them at once.
            self._known.add(name)
            self._expected.add(name)
            self.repository.indexes.wrote(name, file)
            for entry in entries:
                for blob in entry.blobs or ():
                    self._underway[blob.type].discard(bytes.fromhex(blob.id))
