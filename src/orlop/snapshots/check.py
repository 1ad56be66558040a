"""Whether a repository is what it promises to be: every fault by the name of its object, and repaired from a copy."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from orlop.errors import Corrupt, NotFound
from orlop.objects.store import ObjectInfo, ObjectStore
from orlop.snapshots import ahead, documents, index, names, nodes, packs
from orlop.snapshots.briefs import FileBrief, brief
from orlop.snapshots.documents import KeyFile, SnapshotFile
from orlop.snapshots.locks import Lock
from orlop.snapshots.packs import Blob, pack_key
from orlop.snapshots.reading import Reading
from orlop.snapshots.report import Progress
from orlop.snapshots.repository import Repository, opened
from orlop.snapshots.treereader import TreeReader
from orlop.snapshots.usage import Usage

_READERS = 2
"""Packs that are read at once: each is in memory."""
_Expected = tuple[ObjectInfo, Sequence[Blob]]
"""A pack, and the blobs in it that the index lists."""


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
        self._reading = Reading()
        self._files: dict[str, FileBrief] = {}

    def run(self, *, read_data: bool) -> Iterator[Fault]:
        # Snapshots before the index, the index before the packs: what is saved meanwhile is then complete.
        yield from self._documents("keys", self._look_at_key)
        yield from self._documents("snapshots", self._look_at_snapshot)
        yield from self._documents("index", self._look_at_index)
        self._repository.indexes.use(self._reading)
        there = {info.key.rpartition("/")[2]: info for info in self._repository.listed("data")}
        yield from self._packs(there)
        if read_data:
            yield from self._contents(there)
        yield from self._trees()

    # -- documents

    def _documents(self, folder: str, look: Callable[[str, bytes], None]) -> Iterator[Fault]:
        keys = [info.key for info in self._repository.listed(folder)]
        for key, content in ahead.asked(self._read, keys):
            try:
                look(key.rpartition("/")[2], content.result())
            except NotFound:
                continue  # taken away since it was listed
            except Corrupt as error:
                repaired = self._repair(key)
                yield Fault(key, str(error), repaired)
                if repaired:
                    look(key.rpartition("/")[2], self._read(key))

    def _read(self, key: str) -> bytes:
        return b"".join(self._repository.store.read(key))

    def _look_at_key(self, name: str, content: bytes) -> None:
        if hashlib.sha256(content).hexdigest() != name:
            raise Corrupt(f"object 'keys/{name}' is damaged: its content has another name")
        documents.decode(content, KeyFile, f"keys/{name}")

    def _look_at_snapshot(self, name: str, content: bytes) -> None:
        self._snapshots[name] = self._repository.snapshot_file(name, content)

    def _look_at_index(self, name: str, content: bytes) -> None:
        file = self._repository.index_file(name, content)
        self._reading.add(name, file)
        self._files[name] = brief(file)

    # -- packs

    def _packs(self, there: Mapping[str, ObjectInfo]) -> Iterator[Fault]:
        listed = {pack: told for file in self._files.values() for pack, told in file.packs.items()}
        for pack, told in listed.items():
            info = there.get(pack)
            if info is None or info.size <= told.end:
                key = pack_key(pack)
                reason = (
                    "it is missing" if info is None else f"it has {info.size} bytes, and should have over {told.end}"
                )
                yield Fault(key, reason, self._repair(key))

    def _contents(self, there: Mapping[str, ObjectInfo]) -> Iterator[Fault]:
        read = ahead.asked(self._content, self._with_expected(there), _READERS)
        for number, (_, content) in enumerate(read):
            info, reason = content.result()
            if reason is not None:
                yield Fault(info.key, reason, self._repair(info.key))
            if self._progress is not None:
                self._progress(Progress(number + 1, info.size, info.key.encode()))

    def _with_expected(self, there: Mapping[str, ObjectInfo]) -> Iterator[_Expected]:
        """Every pack with what the index says of it: one index file after another is in memory."""
        left = dict(there)
        for name, told in self._files.items():
            if told.packs.keys() & left.keys():
                with contextlib.suppress(NotFound):  # a prune has replaced it: its packs are read all the same
                    for pack in self._repository.indexes.file(name).packs or ():
                        if pack.id in left:
                            yield left.pop(pack.id), index.blobs(pack, name)
        yield from ((info, []) for info in left.values())

    def _content(self, expected: _Expected) -> tuple[ObjectInfo, str | None]:
        info, blobs = expected
        name = info.key.rpartition("/")[2]
        try:
            content = memoryview(self._read(info.key))
            if hashlib.sha256(content).hexdigest() != name:
                raise Corrupt("its content has another name")
            found = self._listing(content, name)
            for blob in found:
                opened(self._repository.seal, content[blob.offset : blob.offset + blob.length], blob, name)
            wrong = set(blobs).difference(found)
            return info, f"the index lists {len(wrong)} blobs in it that it does not have" if wrong else None
        except NotFound:
            return info, None  # pruned since it was listed
        except Corrupt as error:
            return info, str(error)

    def _listing(self, pack: memoryview, name: str) -> list[Blob]:
        return packs.listing(len(pack), lambda start, end: bytes(pack[start:end]), self._repository.seal, name)

    # -- trees

    def _trees(self) -> Iterator[Fault]:
        reader, seen = TreeReader(self._repository), Usage()
        for name, snapshot in self._snapshots.items():
            todo = [snapshot.tree]
            while todo:
                tree = todo.pop()
                below, reason = self._tree(reader, tree, seen)
                todo += below
                if reason is not None:
                    yield Fault(f"snapshots/{name}", f"tree {tree}: {reason}")

    def _tree(self, reader: TreeReader, tree: str, seen: Usage) -> tuple[list[str], str | None]:
        """The trees below one that was not seen yet, or what is wrong with it."""
        try:
            if not seen.add("tree", bytes.fromhex(tree)):
                return [], None
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
