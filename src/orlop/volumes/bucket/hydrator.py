"""Brings the content of a volume's placeholders here: first what somebody waits for, and meanwhile all the rest.

One thread hears who waits, and lets our own threads through; some answer; some fetch the rest, many small files at a
time. It can be killed at any moment: those who wait go on waiting, and another goes on where it was
(`orlop.volumes.bucket.holding`).
"""

import errno
import logging
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any, Final

from orlop.errors import Corrupt, OrlopError
from orlop.kernel import handles
from orlop.kernel import syscalls as sc
from orlop.kernel.precontent import Event, Group
from orlop.snapshots import placeholders
from orlop.snapshots.placeholders import Contents, Part
from orlop.volumes import image
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
_Work = Callable[[Any], None]
_log = logging.getLogger(__name__)


class Hydrator:
    """Fetches what is missing in one filesystem."""

    def __init__(self, group: Group, root: int, contents: Contents, journal: Journal, waiting: Waiting, since: int):
        """``group`` has the marks of the filesystem with the root folder ``root``.

        What was changed after ``since`` (nanoseconds) was changed by others, or by us.
        """
        self._root, self._device = root, os.fstat(root).st_dev
        self._group, self._contents, self._journal, self._waiting = group, contents, journal, waiting
        self._since, self._files, self._guard = since, dict[bytes, LazyFile](), threading.Lock()
        self._large = {handle: set(parts) for handle, parts in journal.all_large().items()}
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
            complete = not fetcher.is_alive()
            self._stopped.set()
            fetcher.join()
        self._deaf.set()
        reader.join()
        return complete

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
        with sc.closing(handles.opened(self._root, wait.handle, os.O_RDWR | os.O_NOATIME)) as file:
            lazy = self._known(wait.handle, file)
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

    def _known(self, handle: bytes, file: int) -> LazyFile | None:
        """The placeholder that is open as ``file``; None if it is none."""
        with self._guard:
            if handle not in self._files:
                told = placeholders.of(file)
                if told is None:
                    return None
                lazy = LazyFile(handle, told, self._contents, self._group, self._journal)
                if self._large.get(handle):
                    lazy.had(self._large[handle])
                self._files[handle] = lazy
            return self._files[handle]

    def _count(self, lazy: LazyFile, parts: Sequence[Part]) -> None:
        with self._guard:
            self.fetched += sum(part.end - part.start for part in parts)
            if lazy.is_over:
                self._files.pop(lazy.handle, None)

    # all the rest

    def _fetch_all(self) -> None:
        with ThreadPoolExecutor(_FETCHING, "fetching", self._is_own) as pool:
            while not self._stopped.is_set():
                found = False
                self._troubles.clear()
                for work, what in self._left():
                    found = True
                    self._room.acquire()
                    pool.submit(self._try, work, what)
                for _ in range(_AHEAD):  # all have ended when there is room for as many
                    self._room.acquire()
                self._room.release(_AHEAD)
                if not found:
                    return
                if self._troubles:
                    _log.warning("files are not fetched: %s", self._troubles[0])
                    self._stopped.wait(_AGAIN)

    def _try(self, work: _Work, what: Sequence[str] | bytes) -> None:
        try:
            if not self._stopped.is_set():
                work(what)
        except (OrlopError, OSError) as error:
            self._troubles.append(error)
        finally:
            self._room.release()

    def _left(self) -> Iterator[tuple[_Work, Sequence[str] | bytes]]:
        """Work that is left: the small files, wherever they are now, and then the large ones, one after another."""
        batch: list[str] = []
        size = 0
        for path, told in lazy_files(self._root):
            if told.is_large:
                continue
            batch.append(path)
            size += told.size
            if len(batch) == _BATCH or size >= _BATCH_BYTES:
                yield self._fetch_small, batch
                batch, size = [], 0
        if batch:
            yield self._fetch_small, batch
        for handle in list(self._large):
            if self._is_left(handle):
                yield self._fetch_large, handle

    def _is_left(self, handle: bytes) -> bool:
        """Whether a large file exists, under a name or without, and is not all there."""
        try:
            with sc.closing(handles.opened(self._root, handle, os.O_PATH)) as file:
                left = placeholders.of(f"/proc/self/fd/{file}", links=True) is not None
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            left = False
        if not left:
            del self._large[handle]
        return left

    def _fetch_large(self, handle: bytes) -> None:
        with sc.closing(handles.opened(self._root, handle, os.O_RDWR | os.O_NOATIME)) as file:
            lazy = self._known(handle, file)
            while lazy is not None and not lazy.is_over and not self._stopped.is_set():
                with lazy.lock:
                    if not lazy.is_over:
                        self._fill(lazy, file, lazy.rest()[:_RUN])
                self._stopped.wait(_COURTESY)

    def _fetch_small(self, paths: Sequence[str]) -> None:
        """Fetch whole files; one that is damaged keeps none of the others back."""
        try:
            self._fetch_together(paths)
        except Corrupt:
            self._contents.reload()
            if len(paths) == 1:
                raise
            for path in paths:
                with suppress(Corrupt):
                    self._fetch_together([path])

    def _fetch_together(self, paths: Sequence[str]) -> None:
        """Fetch them with one look at the store, one sync, and everybody else kept out."""
        with ExitStack() as stack:
            files = [found for path in paths if (found := self._open(path, stack)) is not None]
            begun = [(lazy, file, lazy.begin(file, self._since, [0])) for lazy, file in files]
            sealed = self._contents.fetch([part for _, _, parts in begun for part in parts])
            for lazy, file, parts in begun:
                lazy.write(file, parts, sealed)
            sc.sync_filesystem(self._root)
            for lazy, file, parts in begun:
                lazy.settle(file, parts)
                self._count(lazy, parts)

    def _open(self, path: str, stack: ExitStack) -> tuple[LazyFile, int] | None:
        """The placeholder at ``path``, for us alone; None if it is none, or somebody else is at work on it."""
        try:
            name = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        with sc.closing(name):
            status = os.fstat(name)
            # Nobody but us knows what a user has put there meanwhile: opening a device can do anything.
            if not stat.S_ISREG(status.st_mode) or status.st_dev != self._device:
                return None
            handle = handles.of(name)
            file = handles.opened(self._root, handle, os.O_RDWR | os.O_NOATIME)
            stack.callback(os.close, file)
        lazy = self._known(handle, file)
        if lazy is None or not lazy.lock.acquire(blocking=False):
            return None
        stack.callback(lazy.lock.release)
        return lazy, file


def lazy_files(root: int) -> Iterator[tuple[str, placeholders.Placeholder]]:
    """Every placeholder in the filesystem, and what it stands for; one that is moved meanwhile may be missed."""
    for folder, _, names in os.walk(f"/proc/self/fd/{root}/{image.DATA}"):
        for name in names:
            path = f"{folder}/{name}"
            told = placeholders.of(path)
            if told is not None:
                yield path, told


def _wait(event: Event) -> Wait:
    return Wait(event.fd, event.thread, handles.of(event.fd), event.is_access, event.offset, event.count)
