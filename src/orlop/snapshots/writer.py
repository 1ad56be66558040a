"""Blobs into a repository, so that nothing is acknowledged before it is durable: packs, then indexes, then snapshot.

A `Writer` holds the shared lock. Whoever adds a blob hands over its sealed form; the writer puts blobs into packs,
stores packs by a few threads, and writes the index of those that are stored.
"""

import hashlib
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Self

import msgspec

from orlop.snapshots import index
from orlop.snapshots.documents import IndexFile, PackEntry, SnapshotFile
from orlop.snapshots.entering import enter
from orlop.snapshots.locks import Lock
from orlop.snapshots.packs import Kind, PackBuilder, pack_key
from orlop.snapshots.reliance import Reliance
from orlop.snapshots.repository import VERSION, Repository

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
        self._reliance = Reliance(repository)
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
        self._reliance.begin(enter(self.lock, self.repository))
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        self.lock.__exit__()

    def has(self, kind: Kind, blob: bytes) -> bool:
        """Whether the blob is there, or on its way. Whoever is told that it is may refer to it."""
        return blob in self._underway[kind] or self._reliance.has(kind, blob)

    def has_all(self, kind: Kind, blobs: Sequence[str]) -> bool:
        """The same of many blobs at once."""
        missing = self._reliance.missing(kind, blobs)
        return not missing or all(bytes.fromhex(blob) in self._underway[kind] for blob in missing)

    def has_whole(self, snapshot: str) -> bool:
        """See `Reliance`."""
        return self._reliance.has_whole(snapshot)

    def sizes(self, kind: Kind, blobs: Sequence[str]) -> list[int | None]:
        """See `Reliance`."""
        return self._reliance.sizes(kind, blobs)

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
        self._reliance.keep(snapshot)
        # Not beside it: whoever falls asleep in between must not commit when he wakes.
        self.lock.check()
        name, _ = self.repository.put("snapshots", msgspec.json.encode(snapshot))
        # Once more, for a mark that came in between; one that comes from now on sees the snapshot.
        others = self._reliance.keep(snapshot)
        self.repository.indexes.keep()
        self._reliance.remember(name, others)
        return name

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
            self._reliance.wrote_pack(pack)
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
            self._reliance.wrote_index(name)
            self.repository.indexes.wrote(name, file)
            for entry in entries:
                for blob in entry.blobs or ():
                    self._underway[blob.type].discard(bytes.fromhex(blob.id))
