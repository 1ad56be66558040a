"""The index files of a repository, and what they say together; looked at again, only new ones are read.

Others save and prune meanwhile. A file that is new adds to what is known. One that is gone was replaced by a prune, and
may have said what is not true any more: then all are read from the beginning.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterator, Set
from typing import Final, TypeVar

from orlop.errors import NotFound, Unavailable
from orlop.snapshots import ahead
from orlop.snapshots.documents import IndexFile
from orlop.snapshots.index import Index
from orlop.snapshots.indexcache import IndexCache
from orlop.snapshots.reading import Reading

T = TypeVar("T")
_PAUSES: Final = (0.0, 0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Seconds between listings that contradict each other, or what can be read: some stores list what has gone."""


class Indexes:
    """The index files that ``listing`` names, ``fetch`` reads and ``unseal`` makes sense of. Threads may share it."""

    def __init__(self, listing: Callable[[], set[str]], fetch: Callable[[str], bytes],
                 unseal: Callable[[str, bytes], IndexFile], cache: IndexCache | None = None) -> None:  # fmt: skip
        """Nothing is read yet. ``fetch`` raises `NotFound` for one that has gone."""
        self._listing, self._fetch, self._unseal, self._cache = listing, fetch, unseal, cache
        self._now: Reading | None = None
        self._reading = threading.RLock()

    @property
    def were_read(self) -> bool:
        """Whether another look has only to be told what is new."""
        return self._now is not None

    @property
    def live(self) -> Index:
        """The blobs in packs that no prune has marked, as of the last look."""
        return self._known.live

    @property
    def marked(self) -> Index:
        """The blobs in packs that a prune has marked: still there, and soon gone."""
        return self._known.marked

    @property
    def names(self) -> frozenset[str]:
        """The names of the files that were there at the last look."""
        return frozenset(self._known.names)

    @property
    def plain(self) -> frozenset[str]:
        """The names of those that mark nothing."""
        return frozenset(self._known.plain)

    def look(self) -> Index:
        """See what others have saved and pruned; returns what is `live` now, and will grow with the next look.

        One file after another, because as documents they take six times the memory that they take in the index.
        """
        with self._reading:
            known = self._now or (self._cache.load() if self._cache else None) or Reading()
            return self.use(self._settled(known, lambda *_: None))

    def survey(self, see: Callable[[IndexFile], T]) -> dict[str, T]:
        """Read all anew, and take that for all there is; returns what ``see`` makes of each file, by name."""
        told = dict[str, T]()

        def noted(name: str, file: IndexFile) -> None:
            told[name] = see(file)

        with self._reading:
            read = self._settled(Reading(), noted)
            self.use(read)
        return {name: told[name] for name in read.names}

    def wrote(self, name: str, file: IndexFile) -> None:
        """One of our own is there now: it need not be read."""
        with self._reading:
            if self._now is not None:
                self._now.add(name, file)
                self.use(self._now)

    def keep(self) -> None:
        """Let the next process on this host begin with what is known here."""
        with self._reading:
            if self._cache is not None and self._now is not None:
                self._cache.keep(self._now)

    def use(self, read: Reading) -> Index:
        """Take what was read for all there is."""
        read.live.finish()
        read.marked.finish()
        self._now = read
        return read.live

    def file(self, name: str) -> IndexFile:
        """One index file; raises `NotFound` or `Corrupt`."""
        return self._unseal(name, self._fetch(name))

    def files(self, known: Collection[str] = (), expected: Set[str] = frozenset()) -> dict[str, IndexFile]:
        """All index files but those ``known``, by name; one that is replaced meanwhile is seen in one of its forms.

        Where all that are ``expected`` are listed, what replaces one of them may be missing.
        """
        found: dict[str, IndexFile] = {}
        for attempt, listed in enumerate(self._listings()):
            names = listed.difference(known)
            is_as_before = bool(expected) and expected <= listed
            # A prune that replaces one during a listing may hide it under both its names: the next listing has it.
            if (attempt or is_as_before) and names <= found.keys():
                return {name: found[name] for name in names}
            found.update(self._loaded(names - found.keys()))
        raise _never_still()

    def _settled(self, read: Reading, see: Callable[[str, IndexFile], None]) -> Reading:
        """What there is when two listings agree; ``see`` is told of what had to be read for that.

        The first of the two may be the one by which was read before.
        """
        for attempt, names in enumerate(self._listings()):
            if (attempt or read.names) and names == read.names:
                return read
            if read.names - names:
                read = Reading()
            for name, file in self._loaded(names - read.names):
                read.add(name, file)
                see(name, file)
        raise _never_still()

    def _loaded(self, names: set[str]) -> Iterator[tuple[str, IndexFile]]:
        """Those that are still there; several are fetched at once, one is a document."""
        for name, sealed in ahead.asked(self._fetch, sorted(names)):
            with contextlib.suppress(NotFound):
                yield name, self._unseal(name, sealed.result())

    def _listings(self) -> Iterator[set[str]]:
        for pause in _PAUSES:
            yield self._listing()
            time.sleep(pause)
        yield self._listing()

    @property
    def _known(self) -> Reading:
        with self._reading:
            if self._now is None:
                self.look()
            assert self._now is not None  # noqa: S101 - for the type
            return self._now


def _never_still() -> Unavailable:
    return Unavailable("the index changes faster than it can be read, or is listed with objects that are not there")
