"""The index files as a prune changes them: read again one at a time, replaced but never written over."""

from collections.abc import Callable, Collection, Iterable, Iterator, Set

import msgspec

from orlop.snapshots.briefs import FileBrief, brief
from orlop.snapshots.documents import IndexFile, PackEntry
from orlop.snapshots.repository import Repository
from orlop.snapshots.writer import FULL_INDEX


class PruneIndex:
    """Every index file by name, as it is now; ``files`` has them in short."""

    def __init__(self, repository: Repository) -> None:
        """Nothing is known before `survey`."""
        self._repository = repository
        self.files: dict[str, FileBrief] = {}

    def survey(self) -> None:
        """Read all of them."""
        self.files = self._repository.indexes.survey(brief)

    def entries(self, packs: Collection[str]) -> Iterator[PackEntry]:
        """What is listed of these packs, each once; one index file after another is in memory."""
        left = set(packs)
        for name, told in list(self.files.items()):
            if left & (told.packs.keys() | told.marks.keys()):
                file = self._repository.indexes.file(name)
                for pack in [*(file.packs or ()), *(file.packs_to_delete or ())]:
                    # The mark of a loose pack says nothing of its blobs, though an index may have come that does.
                    if pack.id in left and pack.blobs:
                        left.remove(pack.id)
                        yield pack

    def mark(self, doomed: Set[str]) -> list[str]:
        """Write down that these packs go; returns the names of the index files that say so."""
        marks, loose = list[str](), set(doomed)
        for some in _batches(self.entries(doomed)):
            loose.difference_update(pack.id for pack in some)
            marks.append(self.put(IndexFile([], packs_to_delete=some)))
        if loose:
            marks.append(self.put(IndexFile([], packs_to_delete=[PackEntry(pack, []) for pack in sorted(loose)])))
        return marks

    def rewrite(self, names: Collection[str], doomed: Set[str], recovered: Set[str]) -> None:
        """The live entries of these files without the doomed, and with the recovered."""
        live = {pack for name in names for pack in self.files[name].packs} - doomed
        back, gone = recovered - live, recovered | live | doomed
        for name in names:
            told = self.files[name]
            if told.packs.keys() & doomed or told.marks.keys() & gone:
                self._edit(name, doomed=doomed, back=back, gone=gone)

    def forget(self, packs: Set[str]) -> None:
        """These marked packs are deleted."""
        for name in [name for name, told in self.files.items() if told.marks.keys() & packs]:
            self._edit(name, gone=packs)

    def write_down(self, sessions: Callable[[], Collection[str]]) -> None:
        """Beside each mark that does not say so yet, who may count on the packs: asked for once, if there are any."""
        unsaid = [name for name, told in self.files.items() if told.marks and told.sessions is None]
        present = sorted(sessions()) if unsaid else []
        for name in unsaid:
            self._edit(name, sessions=present)

    def put(self, file: IndexFile) -> str:
        """One more."""
        name, _ = self._repository.put("index", msgspec.json.encode(file))
        self.files[name] = brief(file)
        return name

    def _edit(self, name: str, *, doomed: Set[str] = frozenset(), back: Set[str] = frozenset(),
              gone: Set[str] = frozenset(), sessions: list[str] | None = None) -> None:  # fmt: skip
        """The file without the entries ``doomed`` and the marks ``gone``; what is marked and comes ``back`` is live."""
        file = self._repository.indexes.file(name)
        marked = file.packs_to_delete or []
        packs = [pack for pack in file.packs or () if pack.id not in doomed]
        packs += [pack for pack in marked if pack.id in back and pack.blobs]
        marks = [pack for pack in marked if pack.id not in gone]
        if packs or marks:
            told = file.orlop_sessions if sessions is None else sessions
            self.put(IndexFile(packs, packs_to_delete=marks, orlop_sessions=told))
        self._repository.remove("index", name)
        del self.files[name]


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
