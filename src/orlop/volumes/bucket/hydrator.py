"""Brings the content of a volume's placeholders here: first what somebody waits for, and meanwhile all the rest.

One thread hears who waits, and lets our own threads through; some answer; some fetch the rest, many small files at a
time. It can be killed at any moment: those who wait go on waiting, and another goes on where it was
(`orlop.volumes.bucket.holding`).
"""

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Final

from orlop.errors import Corrupt, OrlopError
from orlop.kernel import handles
from orlop.kernel.precontent import Event, Group
from orlop.volumes.bucket.missing import Missing
from orlop.volumes.bucket.rest import AGAIN, Rest
from orlop.volumes.bucket.waiting import Wait, Waiting

PATIENCE = 20.0
"""Seconds for which somebody waits for a store that does not answer."""
_ANSWERING: Final = 8
"""Threads: more than fetch the rest, since a reader who waits comes before what nobody asks for."""
_LOOK: Final = 0.2
_log = logging.getLogger(__name__)


class Hydrator:
    """Fetches what is ``missing``, and answers those who wait for it."""

    def __init__(self, group: Group, missing: Missing, waiting: Waiting):
        """``group`` tells who waits; ``waiting`` remembers them."""
        self._group, self._missing, self._waiting = group, missing, waiting
        self._own: set[int] = set()
        self._stopped, self._deaf = threading.Event(), threading.Event()
        self._rest = Rest(missing, self._stopped, self._is_own)

    def run(self, meanwhile: Callable[[], bool]) -> bool:
        """Fetch until nothing is missing, or ``meanwhile``, which is asked all the time, says that it is over.

        Whether nothing is missing.
        """
        reader = threading.Thread(target=self._read, name="waiting", daemon=True)
        fetcher = threading.Thread(target=self._rest.run, name="fetching", daemon=True)
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
        for _ in range(int(PATIENCE / AGAIN)):
            try:
                return work()
            except Corrupt as error:
                _log.warning("%s", error)
                self._missing.contents.reload()
                return work()
            except OrlopError as error:
                _log.warning("a file that somebody waits for cannot be fetched: %s", error)
                if self._stopped.wait(AGAIN):
                    raise
        return work()

    def _serve(self, wait: Wait) -> None:
        with ExitStack() as stack:
            lazy, file = self._missing.opened(wait.handle, stack)
            if lazy is not None:
                with lazy.lock:
                    if not lazy.is_over:
                        self._missing.fill(lazy, file, lazy.wanted(file, wait))


def _wait(event: Event) -> Wait:
    return Wait(event.fd, event.thread, handles.of(event.fd), event.is_access, event.offset, event.count)
