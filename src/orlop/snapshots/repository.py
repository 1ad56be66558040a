"""A repository in restic's format, version 2: opened by a password, read by blob ids and by snapshots.

Written are packs, then indexes, then the snapshot, which is the commit (`orlop.snapshots.writer`); read is the other
way round. So a crash at any moment leaves objects that nothing refers to, and nothing else.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import msgspec

from orlop.errors import Conflict, Corrupt, Invalid, NotFound
from orlop.objects.store import ABSENT, ObjectInfo, ObjectStore
from orlop.snapshots import ahead, documents, keyfiles
from orlop.snapshots.documents import Config, IndexFile, KeyFile, SnapshotFile
from orlop.snapshots.hostfile import HostFile
from orlop.snapshots.index import Index
from orlop.snapshots.indexcache import IndexCache
from orlop.snapshots.indexes import Indexes
from orlop.snapshots.locks import host_name, user_name
from orlop.snapshots.packs import Blob, Kind, pack_key
from orlop.snapshots.polynomial import random_polynomial
from orlop.snapshots.seal import Seal, SealingKeys
from orlop.snapshots.whole import Whole

VERSION: Final = 2
_COMPRESSED: Final = b"\x02"
"""The first byte of a compressed document; JSON begins with a bracket."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key file: who made it, where and when; ``current`` if the repository was opened with it."""

    name: str
    username: str
    hostname: str
    created: str
    current: bool


class Repository:
    """Snapshots and blobs in one store, behind one seal. Threads may share it."""

    def __init__(
        self, store: ObjectStore, keys: SealingKeys, config: Config, key: str, cache: Path | None = None
    ) -> None:
        self.store, self.config = store, config
        self.seal = Seal(keys)
        self.sealing_keys, self._key = keys, key
        # A digest: what a repository says of itself is no file name.
        name = hashlib.sha256(config.id.encode()).hexdigest()[:32]
        kept = IndexCache(HostFile(cache / f"index-{name}", self.seal)) if cache else None
        self.indexes = Indexes(self._index_names, self._sealed_index, self.index_file, kept)
        self.whole = Whole(HostFile(cache / f"whole-{name}", self.seal) if cache else None)
        self._snapshots: dict[str, SnapshotFile] = {}

    @classmethod
    def create(cls, store: ObjectStore, password: bytes, *, is_random: bool = False, cache: Path | None = None) -> Self:
        """A new repository; raises `Conflict` if there is one already.

        ``is_random`` says that the password was not thought of by somebody (`orlop.snapshots.keyfiles`).
        """
        keyfiles.check_password(password)
        if next(iter(store.walk("keys/")), None) or _is_there(store, "config"):
            raise Conflict("there is a repository in this place already; open it, or choose another")
        keys = SealingKeys.random()
        key = _add_key(store, keys, password, is_random=is_random)
        config = Config(VERSION, os.urandom(32).hex(), f"{random_polynomial():x}")
        store.write("config", [Seal(keys).seal(msgspec.json.encode(config))], only_if=ABSENT)
        return cls(store, keys, config, key, cache)

    @classmethod
    def open(cls, store: ObjectStore, password: bytes, *, cache: Path | None = None) -> Self:
        """An existing repository; raises `NotFound` if there is none, `Invalid` for a wrong password.

        ``cache`` is a folder in which this host keeps what it has read of the index (`orlop.snapshots.indexcache`),
        and which snapshots have all their blobs there (`orlop.snapshots.whole`).
        """
        keyfiles.check_password(password)
        with ahead.beside(lambda: list(store.walk("keys/"))) as listed:
            try:
                sealed = b"".join(store.read("config"))
            except NotFound:
                raise NotFound("there is no repository in this place; create one first") from None
            name, keys, plain = _opened_key(store, listed.result(), password, sealed)
        config = documents.decode(plain, Config, "config")
        if config.version not in (1, VERSION):
            raise Invalid(f"the repository has format version {config.version}; this release knows 1 and {VERSION}")
        return cls(store, keys, config, name, cache)

    # -- keys

    def key_files(self) -> Iterator[Key]:
        """The key files, each of which opens the repository with a password of its own."""
        for info in self.store.walk("keys/"):
            name = info.key.removeprefix("keys/")
            file = documents.decode(b"".join(self.store.read(info.key)), KeyFile, info.key)
            yield Key(name, file.username, file.hostname, file.created, name == self._key)

    def add_key(self, password: bytes) -> str:
        """Another password that opens the repository; returns the name of its key file."""
        return _add_key(self.store, self.sealing_keys, keyfiles.check_password(password), is_random=False)

    def remove_key(self, name: str) -> None:
        """Forget a password; nothing there is fine. Raises `Invalid` for the one that is in use.

        Whoever knew it may have kept the keys themselves: those never change.
        """
        if name == self._key:
            raise Invalid(f"key {name!r} is the one this repository was opened with; open it with another first")
        self.store.delete(f"keys/{name}")

    # -- documents

    def listed(self, folder: str) -> list[ObjectInfo]:
        """The objects in ``index``, ``locks``, ``snapshots`` or ``data``."""
        return list(self.store.walk(f"{folder}/"))

    def load(self, folder: str, name: str) -> bytes:
        """The content of a sealed document; raises `NotFound`, or `Corrupt` naming it."""
        return self._unsealed(folder, name, self._sealed(folder, name))

    def _sealed(self, folder: str, name: str) -> bytes:
        return b"".join(self.store.read(f"{folder}/{name}"))

    def _unsealed(self, folder: str, name: str, sealed: bytes) -> bytes:
        key = f"{folder}/{name}"
        if hashlib.sha256(sealed).hexdigest() != name:
            raise Corrupt(f"object {key!r} is damaged: its content has another name")
        try:
            plain = self.seal.open(sealed)
            return self.seal.decompress(plain[1:]) if plain[:1] == _COMPRESSED else plain
        except Corrupt as error:
            raise Corrupt(f"object {key!r} is damaged: {error}") from None

    def put(self, folder: str, plain: bytes) -> tuple[str, ObjectInfo]:
        """Seal a document and store it durably; it is named for its content."""
        if self.config.version >= VERSION:
            plain = _COMPRESSED + self.seal.compress(plain)
        sealed = self.seal.seal(plain)
        name = hashlib.sha256(sealed).hexdigest()
        return name, self.store.write(f"{folder}/{name}", [sealed])

    def remove(self, folder: str, name: str) -> None:
        """Delete a document; nothing there is fine."""
        self.store.delete(f"{folder}/{name}")

    # -- snapshots

    def snapshots(self) -> dict[str, SnapshotFile]:
        """All snapshots by id, the oldest first. Each is read once: its name says what is in it."""
        names = [info.key.removeprefix("snapshots/") for info in self.listed("snapshots")]
        known = self._snapshots
        found = {name: known[name] for name in names if name in known}
        for name, file in ahead.asked(self.snapshot, [name for name in names if name not in known]):
            with contextlib.suppress(NotFound):  # forgotten since it was listed
                found[name] = file.result()
        self._snapshots = dict(found)
        return dict(sorted(found.items(), key=lambda item: item[1].time))

    def snapshot(self, name: str) -> SnapshotFile:
        """One snapshot; raises `NotFound` or `Corrupt`."""
        return self.snapshot_file(name, self._sealed("snapshots", name))

    def known_snapshot(self, name: str) -> SnapshotFile:
        """The same; whether one that was read before is still there is not asked."""
        return self._snapshots.get(name) or self.snapshot(name)

    def snapshot_file(self, name: str, sealed: bytes) -> SnapshotFile:
        """A snapshot that was read; raises `Corrupt` naming it."""
        return documents.decode(self._unsealed("snapshots", name, sealed), SnapshotFile, f"snapshots/{name}")

    def forget(self, name: str) -> None:
        """Delete a snapshot; its blobs stay until a prune finds that nothing needs them."""
        self.remove("snapshots", name)

    # -- blobs

    @property
    def index(self) -> Index:
        """The blobs of the repository, as of the last look at `indexes`."""
        return self.indexes.live

    def _index_names(self) -> set[str]:
        return {info.key.removeprefix("index/") for info in self.listed("index")}

    def _sealed_index(self, name: str) -> bytes:
        return self._sealed("index", name)

    def index_file(self, name: str, sealed: bytes) -> IndexFile:
        """An index file that was read; raises `Corrupt` naming it."""
        return documents.decode(self._unsealed("index", name, sealed), IndexFile, f"index/{name}")

    def has(self, kind: Kind, blob: bytes) -> bool:
        """Whether a blob is there."""
        return self.index.has(kind, blob)

    def can_read(self, kind: Kind, blob: bytes) -> bool:
        """Whether a blob is there, if only in a pack that a prune has marked."""
        return self.indexes.live.has(kind, blob) or self.indexes.marked.has(kind, blob)

    def place(self, kind: Kind, blob: bytes) -> tuple[str, Blob]:
        """The pack a blob is in, and where; raises `Corrupt` if the repository does not have it.

        A pack that a prune has marked is still there and can be read, though `has` does not know it.
        """
        all_ = self.indexes
        found = all_.live.find(kind, blob) or all_.look().find(kind, blob) or all_.marked.find(kind, blob)
        if found is None:
            raise Corrupt(f"the repository has no {kind} blob {blob.hex()}; check it")
        return found

    def read(self, kind: Kind, blob: bytes) -> bytes:
        """The content of a blob, verified against its id; raises `Corrupt` naming the blob and its pack."""
        pack, where = self.place(kind, blob)
        try:
            sealed = b"".join(self.store.read(pack_key(pack), where.offset, where.offset + where.length))
        except NotFound:
            raise Corrupt(f"pack {pack!r} is missing; it has {kind} blob {blob.hex()}") from None
        return opened(self.seal, sealed, where, pack)


def opened(seal: Seal, sealed: bytes | memoryview, blob: Blob, pack: str) -> bytes:
    """The content of a blob; raises `Corrupt` naming it and its pack unless it is what its id says."""
    try:
        if len(sealed) != blob.length:
            raise Corrupt(f"{len(sealed)} bytes where there should be {blob.length}")
        plain = seal.open(sealed)
        if blob.uncompressed:
            plain = seal.decompress(plain, blob.uncompressed)
    except Corrupt as error:
        raise Corrupt(f"{blob.kind} blob {blob.id.hex()} in pack {pack!r} is damaged: {error}") from None
    if hashlib.sha256(plain).digest() != blob.id:
        raise Corrupt(f"{blob.kind} blob {blob.id.hex()} in pack {pack!r} is damaged: its content has another id")
    return plain


def _is_there(store: ObjectStore, key: str) -> bool:
    try:
        store.stat(key)
    except NotFound:
        return False
    return True


def _add_key(store: ObjectStore, keys: SealingKeys, password: bytes, *, is_random: bool) -> str:
    user, host = user_name(), host_name()
    content = keyfiles.wrap(
        keys, password, is_random=is_random, created=time.time_ns(), username=user, hostname=host
    )  # fmt: skip
    name = hashlib.sha256(content).hexdigest()
    store.write(f"keys/{name}", [content])
    return name


def _opened_key(
    store: ObjectStore, files: Iterable[ObjectInfo], password: bytes, sealed: bytes
) -> tuple[str, SealingKeys, bytes]:
    """The key file that the password opens, its keys, and the config that these open.

    Of two that made the repository at once, one may have left a key file that opens nothing.
    """
    damaged: list[str] = []
    for info in files:
        name = info.key.removeprefix("keys/")
        content = b"".join(store.read(info.key))
        if hashlib.sha256(content).hexdigest() != name:
            damaged.append(info.key)
            continue
        keys = keyfiles.unwrap(content, password, info.key)
        try:
            if keys is not None:
                return name, keys, Seal(keys).open(sealed)
        except Corrupt:
            damaged.append("config")
    if damaged:
        raise Corrupt(f"no key file opens with this password, and object {damaged[0]!r} is damaged")
    raise Invalid("wrong password: none of the repository's key files opens with it")
