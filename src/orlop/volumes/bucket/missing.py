"""The files of a volume that are not all here yet: each is opened, filled and counted in one place, whoever asks."""

import errno
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

from orlop.kernel import handles
from orlop.kernel import syscalls as sc
from orlop.kernel.precontent import Group
from orlop.snapshots import placeholders
from orlop.snapshots.placeholders import Contents
from orlop.snapshots.runs import Run
from orlop.volumes.bucket.journal import Journal
from orlop.volumes.bucket.lazyfile import LazyFile
from orlop.volumes.bucket.twins import Twins

_RUN: Final = 4
"""Parts of a large file that are fetched at a time."""
_WRITING: Final = os.O_RDWR | os.O_NOATIME


class Missing:
    """What is missing in one filesystem. Threads may share it."""

    def __init__(self, root: int, group: Group, contents: Contents, journal: Journal, since: int):
        """``group`` has the marks of the filesystem with the root folder ``root``.

        What was changed after ``since`` (nanoseconds) was changed by others, or by us.
        """
        self._root, self._group, self._journal, self._since = root, group, journal, since
        self._twins = Twins(root)
        self.contents = contents
        self._files, self._guard = dict[bytes, LazyFile](), threading.Lock()
        self._sizes, self._parts = journal.files(), journal.done()
        self.fetched = 0
        """Bytes, since this began."""

    def __bool__(self) -> bool:
        """Whether anything is missing."""
        return bool(self._sizes)

    def sizes(self) -> list[tuple[bytes, int]]:
        """The files, in the order in which they were made, and how many bytes each has."""
        return list(self._sizes.items())

    def opened(self, handle: bytes, stack: ExitStack) -> tuple[LazyFile | None, int]:
        """The placeholder, and it open for writing; None if it is none any more, or gone."""
        with suppress_gone(), sc.closing(handles.opened(self._root, handle, os.O_PATH)) as name:
            # Looked at first: a program that runs cannot be opened for writing.
            if placeholders.of(f"/proc/self/fd/{name}", links=True) is not None:
                file = handles.opened(self._root, handle, _WRITING)
                stack.callback(os.close, file)
                lazy = self._known(handle, file)
                if lazy is not None:
                    return lazy, file
        self._sizes.pop(handle, None)
        self._twins.drop(handle)
        return None, -1

    def fill(self, lazy: LazyFile, file: int, numbers: Sequence[int]) -> None:
        """Fetch these parts of a file, durably, and one more where that has to come first; its lock is held."""
        parts = lazy.begin(file, self._since, numbers)
        for some in (parts[place : place + _RUN] for place in range(0, len(parts), _RUN)):
            lazy.write(file, some, self.contents.fetch(some))
            os.fdatasync(file)
            lazy.settle(file, some)
            self._count(lazy, some)
        if not parts and not lazy.rest():
            # Somebody fetched all of it, and was killed before he could say so.
            lazy.settle(file, ())
        self._count(lazy, ())

    def fill_together(self, found: Sequence[bytes]) -> None:
        """Fetch them with one look at the store, one sync, and everybody else kept out."""
        with ExitStack() as stack:
            files = [opened for handle in found if (opened := self._open(handle, stack)) is not None]
            begun = [(lazy, file, lazy.begin(file, self._since, [0])) for lazy, file in files]
            sealed = self.contents.fetch([part for _, _, parts in begun for part in parts])
            for lazy, file, parts in begun:
                lazy.write(file, parts, sealed)
            sc.sync_filesystem(self._root)
            for lazy, file, parts in begun:
                lazy.settle(file, parts)
                self._count(lazy, parts)

    def _open(self, handle: bytes, stack: ExitStack) -> tuple[LazyFile, int] | None:
        """The placeholder, for us alone; None if it is none any more, or somebody else is at work on it."""
        lazy, file = self.opened(handle, stack)
        if lazy is None or not lazy.lock.acquire(blocking=False):
            return None
        stack.callback(lazy.lock.release)
        return lazy, file

    def _known(self, handle: bytes, file: int) -> LazyFile | None:
        with self._guard:
            if handle not in self._files:
                # Looked at again: whoever completed it since has let others in, who may have written to it.
                told = placeholders.of(file)
                if told is None:
                    return None
                lazy = LazyFile(handle, told, self.contents, self._group, self._journal, self._twins)
                if handle in self._parts:
                    lazy.had(self._parts[handle])
                self._files[handle] = lazy
            return self._files[handle]

    def _count(self, lazy: LazyFile, parts: Sequence[Run]) -> None:
        with self._guard:
            self.fetched += sum(part.end - part.start for part in parts)
            if lazy.is_over and self._files.pop(lazy.handle, None) is not None:
                self.fetched += lazy.holes
                self._sizes.pop(lazy.handle, None)


@contextmanager
def suppress_gone() -> Iterator[None]:
    """A file that nobody can see any more is no trouble."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
