"""Index files that were read, and what they say together."""

from orlop.snapshots.documents import IndexFile
from orlop.snapshots.index import Index


class Reading:
    """Index files that were read: which, which of them mark nothing, and what they say."""

    def __init__(self) -> None:
        """None yet."""
        self.names: set[str] = set()
        self.plain: set[str] = set()
        self.live, self.marked = Index(), Index()
        self.cached = 0
        """How many of the blobs are in this host's cache."""

    def add(self, name: str, file: IndexFile) -> None:
        """One more was read."""
        self.live.load(name, file.packs or ())
        self.marked.load(name, file.packs_to_delete or ())
        self.names.add(name)
        if not file.packs_to_delete:
            self.plain.add(name)

    @property
    def blobs(self) -> int:
        """How many the files name."""
        return len(self.live) + len(self.marked)
