"""Brings the content of a volume's placeholders here: first what somebody waits for, and meanwhile all the rest.

One thread hears who waits, and lets our own threads through; some answer; some fetch the rest, many small files at a
time. It can be killed at any moment: those who wait go on waiting, and another goes on where it was
(`orlop.volumes.bucket.holding`).
"""

import errno
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from orlop.errors import Corrupt, OrlopError
from orlop.kernel import handles
from orlop.kernel import syscalls as sc
from orlop.kernel.precontent import Event, Group
from orlop.snapshots import placeholders
from orlop.snapshots.placeholders import Contents, Part
from orlop.volumes.bucket.journal import Journal
from orlop.volumes.bucket.lazyfile import LazyFile
from orlop.volumes.bucket.waiting import Wait, Waiting

PATIENCE = 20.0
"""Seconds for which somebody waits for a store that does not answer."""
_ANSWERING, _FETCHING = 8, 3
"""Threads. A reader who waits comes before what nobody asks for, so more of them answer."""
_BATCH, _BATCH_BYTES, _RUN = 128, 4 << 20, 4
"""Files, and bytes of small files, and parts of a large one, that are fetched at a time."""
_AHEAD: Final = _FETCHING * 2
_COURTESY: Final = 0.001
"""Seconds in which whoever waits for a large file gets at it, before more of it is fetched that nobody asked for."""
_AGAIN: Final = 1.0
"""Seconds until a store that did not answer is asked again."""
_LOOK: Final = 0.2
_WRITING: Final = os.O_RDWR | os.O_NOATIME
_Work = Callable[[Sequence[bytes]], None]
_log = logging.getLogger(__name__)


class Hydrator:
    """Fetches what is missing in one filesystem."""

    def __init__(self, group: Group, root: int, contents: Contents, journal: Journal, waiting: Waiting, since: int):
        """``group`` has the marks of the filesystem with the root folder ``root``.

        What was changed after ``since`` (nanoseconds) was changed by others, or by us.
        """
        self._root = root
        self._group, self._contents, self._journal, self._waiting = group, contents, journal, waiting
        self._since, self._files, self._guard = since, dict[bytes, LazyFile](), threading.Lock()
        self._missing, self._parts = journal.files(), journal.done()
        self._own: set[int] = set()
        self._stopped, self._deaf = threading.Event(), threading.Event()
        self._room = threading.Semaphore(_AHEAD)
        self._troubles: list[OrlopError | OSError] = []
        self.fetched = 0
        """Bytes, by this hydrator."""

    def run(self, meanwhile: Callable[[], bool]) -> bool:
        """Fetch until nothing is missing, or ``meanwhile``, which is asked all the time, says that it is over.

        Whether nothing is missing.
        """
        reader = threading.Thread(target=self._read, name="waiting", daemon=True)
        fetcher = threading.Thread(target=self._fetch_all, name="fetching", daemon=True)
        with ThreadPoolExecutor(_ANSWERING, "answering", self._is_own) as self._answering:
            reader.start()
            fetcher.start()
            while fetcher.is_alive() and not meanwhile():
                fetcher.join(_LOOK)
            self._stopped.set()
            fetcher.join()
        self._deaf.set()
        reader.join()
        return not self._missing

    # those who wait

    def _is_own(self) -> None:
        self._own.add(threading.get_native_id())

    def _read(self) -> None:
        try:
            self._hear()
        except BaseException:  # noqa: BLE001 - whatever it is
            # Nobody would let our own threads through any more. Another process goes on.
            _log.exception("readers of missing files are not heard")
            os._exit(1)

    def _hear(self) -> None:
        for wait in self._waiting.left():
            self._answering.submit(self._answer, wait, is_open=False)
        while not self._deaf.is_set():
            others = []
            for event in self._group.events(_LOOK):
                if event.thread in self._own:
                    self._group.allow(event.fd)
                    os.close(event.fd)
                else:
                    others.append(_wait(event))
            if others:
                self._waiting.add(others)
            for wait in others:
                with suppress(RuntimeError):  # it is over: those who wait are let go with the group
                    self._answering.submit(self._answer, wait, is_open=True)

    def _answer(self, wait: Wait, *, is_open: bool) -> None:
        """Let somebody go on when what he waits for is there, or refuse him after a while; he may try again.

        The file is open by the number of the event, unless another process was told of it.
        """
        try:
            self._persist(lambda: self._serve(wait))
        except (OrlopError, OSError) as error:
            _log.error("somebody who needs a file is refused: %s", error)
            self._group.refuse(wait.number)
        else:
            self._group.allow(wait.number)
        self._waiting.answered(wait.number)
        if is_open:
            os.close(wait.number)

    def _persist(self, work: Callable[[], None]) -> None:
        for _ in range(int(PATIENCE / _AGAIN)):
            try:
                return work()
            except Corrupt as error:
                _log.warning("%s", error)
                self._contents.reload()
                return work()
            except OrlopError as error:
                _log.warning("a file that somebody waits for cannot be fetched: %s", error)
                if self._stopped.wait(_AGAIN):
                    raise
        return work()

    def _serve(self, wait: Wait) -> None:
        with ExitStack() as stack:
            lazy, file = self._opened(wait.handle, stack)
            if lazy is not None:
                with lazy.lock:
                    if not lazy.is_over:
                        self._fill(lazy, file, lazy.wanted(file, wait))

    def _fill(self, lazy: LazyFile, file: int, numbers: Sequence[int]) -> None:
        parts = lazy.begin(file, self._since, numbers)
        for some in (parts[place : place + _RUN] for place in range(0, len(parts), _RUN)):
            lazy.write(file, some, self._contents.fetch(some))
            os.fdatasync(file)
            lazy.settle(file, some)
            self._count(lazy, some)
        self._count(lazy, ())

    def _opened(self, handle: bytes, stack: ExitStack) -> tuple[LazyFile | None, int]:
        """The placeholder, and it open for writing; None if it is none any more, or gone."""
        with suppress_gone(), sc.closing(handles.opened(self._root, handle, os.O_PATH)) as name:
            # Looked at first: a program that runs cannot be opened for writing.
            told = placeholders.of(f"/proc/self/fd/{name}", links=True)
            if told is not None:
                file = handles.opened(self._root, handle, _WRITING)
                stack.callback(os.close, file)
                return self._known(handle, told), file
        self._missing.pop(handle, None)
        return None, -1

    def _known(self, handle: bytes, told: placeholders.Placeholder) -> LazyFile:
        with self._guard:
            if handle not in self._files:
                lazy = LazyFile(handle, told, self._contents, self._group, self._journal)
                if handle in self._parts:
                    lazy.had(self._parts[handle])
                self._files[handle] = lazy
            return self._files[handle]

    def _count(self, lazy: LazyFile, parts: Sequence[Part]) -> None:
        with self._guard:
            self.fetched += sum(part.end - part.start for part in parts)
            if lazy.is_over:
                self._files.pop(lazy.handle, None)
                self._missing.pop(lazy.handle, None)

    # all the rest

    def _fetch_all(self) -> None:
        with ThreadPoolExecutor(_FETCHING, "fetching", self._is_own) as pool:
            while self._missing and not self._stopped.is_set():
                self._troubles.clear()
                for work, what in self._left():
                    self._room.acquire()
                    pool.submit(self._try, work, what)
                for _ in range(_AHEAD):  # all have ended when there is room for as many
                    self._room.acquire()
                self._room.release(_AHEAD)
                if self._troubles:
                    _log.warning("files are not fetched: %s", self._troubles[0])
                if self._missing:
                    # What is at work elsewhere is looked at once more.
                    self._stopped.wait(_AGAIN if self._troubles else _LOOK)

    def _try(self, work: _Work, what: Sequence[bytes]) -> None:
        try:
            if not self._stopped.is_set():
                work(what)
        except (OrlopError, OSError) as error:
            self._troubles.append(error)
        finally:
            self._room.release()

    def _left(self) -> Iterator[tuple[_Work, Sequence[bytes]]]:
        """Work that is left: the small files, in the order in which they were made, and then each large one."""
        batch: list[bytes] = []
        size = 0
        for handle, length in list(self._missing.items()):
            if length > placeholders.LARGE:
                continue
            batch.append(handle)
            size += length
            if len(batch) == _BATCH or size >= _BATCH_BYTES:
                yield self._fetch_small, batch
                batch, size = [], 0
        if batch:
            yield self._fetch_small, batch
        for handle, length in list(self._missing.items()):
            if length > placeholders.LARGE:
                yield self._fetch_large, [handle]

    def _fetch_large(self, found: Sequence[bytes]) -> None:
        """Fetch a large file, under whatever name, or none: somebody may still have it open."""
        (handle,) = found
        with ExitStack() as stack:
            lazy, file = self._opened(handle, stack)
            while lazy is not None and not lazy.is_over and not self._stopped.is_set():
                with lazy.lock:
                    if not lazy.is_over:
                        self._fill(lazy, file, lazy.rest()[:1])
                self._stopped.wait(_COURTESY)

    def _fetch_small(self, found: Sequence[bytes]) -> None:
        """Fetch whole files; one that is damaged keeps none of the others back."""
        try:
            self._fetch_together(found)
        except Corrupt:
            self._contents.reload()
            if len(found) == 1:
                raise
            for handle in found:
                try:
                    self._fetch_together([handle])
                except Corrupt as error:
                    self._troubles.append(error)

    def _fetch_together(self, found: Sequence[bytes]) -> None:
        """Fetch them with one look at the store, one sync, and everybody else kept out."""
        with ExitStack() as stack:
            files = [opened for handle in found if (opened := self._open(handle, stack)) is not None]
            begun = [(lazy, file, lazy.begin(file, self._since, [0])) for lazy, file in files]
            sealed = self._contents.fetch([part for _, _, parts in begun for part in parts])
            for lazy, file, parts in begun:
                lazy.write(file, parts, sealed)
            sc.sync_filesystem(self._root)
            for lazy, file, parts in begun:
                lazy.settle(file, parts)
                self._count(lazy, parts)

    def _open(self, handle: bytes, stack: ExitStack) -> tuple[LazyFile, int] | None:
        """The placeholder, for us alone; None if it is none any more, or somebody else is at work on it."""
        lazy, file = self._opened(handle, stack)
        if lazy is None or not lazy.lock.acquire(blocking=False):
            return None
        stack.callback(lazy.lock.release)
        return lazy, file


@contextmanager
def suppress_gone() -> Iterator[None]:
    """A file that nobody can see any more is no trouble."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise


def _wait(event: Event) -> Wait:
    return Wait(event.fd, event.thread, handles.of(event.fd), event.is_access, event.offset, event.count)
