"""Fetches what nobody asks for: many small files at a time, and large ones part by part, until all is here."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Final

from orlop.errors import Corrupt, OrlopError
from orlop.snapshots import placeholders
from orlop.volumes.bucket.missing import Missing

AGAIN: Final = 1.0
"""Seconds until a store that did not answer is asked again."""
_THREADS: Final = 3
_BATCH, _BATCH_BYTES = 128, 4 << 20
"""Small files, and bytes of them, that are fetched at a time."""
_AHEAD: Final = _THREADS * 2
_COURTESY: Final = 0.001
"""Seconds in which whoever waits for a large file gets at it, before more of it is fetched that nobody asked for."""
_LOOK: Final = 0.2
_Work = Callable[[Sequence[bytes]], None]
_log = logging.getLogger(__name__)


class Rest:
    """Fetches all that is ``missing``, until it is ``stopped``; each of its threads calls ``begun`` first."""

    def __init__(self, missing: Missing, stopped: threading.Event, begun: Callable[[], None]):
        """Nothing is fetched before `run`."""
        self._missing, self._stopped, self._begun = missing, stopped, begun
        self._room = threading.Semaphore(_AHEAD)
        self._troubles: list[OrlopError | OSError] = []

    def run(self) -> None:
        """Fetch; what cannot be fetched is tried again and again."""
        with ThreadPoolExecutor(_THREADS, "fetching", self._begun) as pool:
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
                    self._stopped.wait(AGAIN if self._troubles else _LOOK)

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
        for handle, length in self._missing.sizes():
            if length > placeholders.LARGE:
                continue
            batch.append(handle)
            size += length
            if len(batch) == _BATCH or size >= _BATCH_BYTES:
                yield self._fetch_small, batch
                batch, size = [], 0
        if batch:
            yield self._fetch_small, batch
        for handle, length in self._missing.sizes():
            if length > placeholders.LARGE:
                yield self._fetch_large, [handle]

    def _fetch_large(self, found: Sequence[bytes]) -> None:
        """Fetch a large file, under whatever name, or none: somebody may still have it open."""
        (handle,) = found
        with ExitStack() as stack:
            lazy, file = self._missing.opened(handle, stack)
            while lazy is not None and not lazy.is_over and not self._stopped.is_set():
                with lazy.lock:
                    if not lazy.is_over:
                        self._missing.fill(lazy, file, lazy.rest()[:1])
                self._stopped.wait(_COURTESY)

    def _fetch_small(self, found: Sequence[bytes]) -> None:
        """Fetch whole files; one that is damaged keeps none of the others back."""
        try:
            self._missing.fill_together(found)
        except Corrupt:
            self._missing.contents.reload()
            if len(found) == 1:
                raise
            for handle in found:
                try:
                    self._missing.fill_together([handle])
                except Corrupt as error:
                    self._troubles.append(error)
