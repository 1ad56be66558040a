"""Whether a repository is what it promises to be: every fault by the name of its object, and repaired from a copy."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from orlop.errors import Corrupt, NotFound
from orlop.objects.store import ObjectInfo, ObjectStore
from orlop.snapshots import ahead, documents, index, names, nodes, packs
from orlop.snapshots.documents import IndexFile, KeyFile, SnapshotFile
from orlop.snapshots.locks import Lock
from orlop.snapshots.packs import Blob
from orlop.snapshots.report import Progress
from orlop.snapshots.repository import Repository, opened
from orlop.snapshots.treereader import TreeReader

_READERS = 2


@dataclass(frozen=True, slots=True)
class Fault:
    """An object that is missing or damaged (its key), and how; ``repaired`` if a good copy has taken its place."""

    key: str
    reason: str
    repaired: bool = False


def check(repository: Repository, *, read_data: bool = False, copy: ObjectStore | None = None,
          progress: Callable[[Progress], None] | None = None) -> list[Fault]:  # fmt: skip
    """Look at every key, index, snapshot and tree, and for all packs; with ``read_data`` at every byte.

    Whatever is wrong is taken from ``copy``, a store with the same repository, if it is right there. Others may work
    meanwhile.
    """
    with Lock(repository):
        return list(_Check(repository, copy, progress).run(read_data=read_data))


class _Check:
    def __init__(self, repository: Repository, copy: ObjectStore | None,
                 progress: Callable[[Progress], None] | None) -> None:  # fmt: skip
        self._repository, self._copy, self._progress = repository, copy, progress
        self._snapshots: dict[str, SnapshotFile] = {}
        self._files: dict[str, IndexFile] = {}
        self._expected: dict[str, list[Blob]] = {}

    def run(self, *, read_data: bool) -> Iterator[Fault]:
        # Snapshots before the index, the index before the packs: what is saved meanwhile is then complete.
        yield from self._documents("keys", self._look_at_key)
        yield from self._documents("snapshots", self._look_at_snapshot)
        yield from self._documents("index", self._look_at_index)
        self._repository.indexes.use(self._files)
        there = {info.key.rpartition("/")[2]: info for info in self._repository.listed("data")}
        yield from self._packs(there)
        if read_data:
            yield from self._contents(there.values())
        yield from self._trees()

    # -- documents

    def _documents(self, folder: str, look: Callable[[str], None]) -> Iterator[Fault]:
        keys = [info.key for info in self._repository.listed(folder)]
        for key, looked in ahead.asked(lambda key: look(key.rpartition("/")[2]), keys):
            try:
                looked.result()
            except NotFound:
                continue  # taken away since it was listed
            except Corrupt as error:
                repaired = self._repair(key)
                yield Fault(key, str(error), repaired)
                if repaired:
                    look(key.rpartition("/")[2])

    def _look_at_key(self, name: str) -> None:
        content = b"".join(self._repository.store.read(f"keys/{name}"))
        if hashlib.sha256(content).hexdigest() != name:
            raise Corrupt(f"object 'keys/{name}' is damaged: its content has another name")
        documents.decode(content, KeyFile, f"keys/{name}")

    def _look_at_snapshot(self, name: str) -> None:
        self._snapshots[name] = self._repository.snapshot(name)

    def _look_at_index(self, name: str) -> None:
        file = documents.decode(self._repository.load("index", name), IndexFile, f"index/{name}")
        self._files[name] = file
        for pack in file.packs or ():
            self._expected[pack.id] = index.blobs(pack, name)

    # -- packs

    def _packs(self, there: dict[str, ObjectInfo]) -> Iterator[Fault]:
        for pack, blobs in self._expected.items():
            info = there.get(pack)
            least = max((blob.offset + blob.length for blob in blobs), default=0)
            if info is None or info.size <= least:
                key = f"data/{pack[:2]}/{pack}"
                reason = "it is missing" if info is None else f"it has {info.size} bytes, and should have over {least}"
                yield Fault(key, reason, self._repair(key))

    def _contents(self, packs: Iterable[ObjectInfo]) -> Iterator[Fault]:
        with ThreadPoolExecutor(_READERS, thread_name_prefix="check") as threads:
            for number, (info, reason) in enumerate(threads.map(self._content, packs)):
                if reason is not None:
                    yield Fault(info.key, reason, self._repair(info.key))
                if self._progress is not None:
                    self._progress(Progress(number + 1, info.size, info.key.encode()))

    def _content(self, info: ObjectInfo) -> tuple[ObjectInfo, str | None]:
        name = info.key.rpartition("/")[2]
        try:
            content = memoryview(b"".join(self._repository.store.read(info.key)))
            if hashlib.sha256(content).hexdigest() != name:
                raise Corrupt("its content has another name")
            blobs = self._listing(content, name)
            for blob in blobs:
                opened(self._repository.seal, content[blob.offset : blob.offset + blob.length], blob, name)
            wrong = set(self._expected.get(name, ())).difference(blobs)
            return info, f"the index lists {len(wrong)} blobs in it that it does not have" if wrong else None
        except NotFound:
            return info, None  # pruned since it was listed
        except Corrupt as error:
            return info, str(error)

    def _listing(self, pack: memoryview, name: str) -> list[Blob]:
        return packs.listing(len(pack), lambda start, end: bytes(pack[start:end]), self._repository.seal, name)

    # -- trees

    def _trees(self) -> Iterator[Fault]:
        reader, seen = TreeReader(self._repository), set[str]()
        for name, snapshot in self._snapshots.items():
            todo = [snapshot.tree]
            while todo:
                tree = todo.pop()
                if tree in seen:
                    continue
                seen.add(tree)
                below, reason = self._tree(reader, tree)
                todo += below
                if reason is not None:
                    yield Fault(f"snapshots/{name}", f"tree {tree}: {reason}")

    def _tree(self, reader: TreeReader, tree: str) -> tuple[list[str], str | None]:
        try:
            entries = reader.nodes(tree)
            for entry in entries:
                nodes.name_of(entry)
                for blob in entry.content or ():
                    if not self._repository.can_read("data", bytes.fromhex(blob)):
                        return [], f"{names.unquoted(entry.name)!r} needs blob {blob}, which is in no pack"
        except (Corrupt, ValueError) as error:
            return [], str(error)
        return [entry.subtree for entry in entries if entry.subtree], None

    # -- repair

    def _repair(self, key: str) -> bool:
        """Take the object from the copy, if there it is what its name says."""
        if self._copy is None:
            return False
        try:
            content = b"".join(self._copy.read(key))
        except NotFound:
            return False
        if hashlib.sha256(content).hexdigest() != key.rpartition("/")[2]:
            return False
        self._repository.store.write(key, [content])
        return True
