"""Stores around a store: under a prefix, asked again, kept nearby, not too fast. Each adds one thing."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import Final, TypeVar

from orlop.errors import Conflict, NoSpace, NotFound, Unavailable
from orlop.objects.store import ObjectInfo, ObjectStore, check_key

_T = TypeVar("_T")
PAUSES: Final = (0.5, 1.0, 2.0, 4.0)
"""Seconds between attempts: a store that restarts is back, and nobody waits longer than for its own time-outs."""


class Prefixed:
    """The objects whose keys begin with ``prefix`` (which ends in ``/``), without it."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        check_key(prefix.removesuffix("/"))
        self._store, self._prefix = store, prefix

    def __repr__(self) -> str:
        return f"Prefixed({self._store!r}, {self._prefix!r})"

    def stat(self, key: str) -> ObjectInfo:
        """See `ObjectStore`."""
        return self._bare(self._store.stat(self._full(key)))

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See `ObjectStore`."""
        return self._store.read(self._full(key), start, end)

    def write(self, key: str, data: Iterable[bytes], *, only_if: str | None = None) -> ObjectInfo:
        """See `ObjectStore`."""
        return self._bare(self._store.write(self._full(key), data, only_if=only_if))

    def delete(self, key: str) -> None:
        """See `ObjectStore`."""
        self._store.delete(self._full(key))

    def walk(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `ObjectStore`."""
        return map(self._bare, self._store.walk(self._prefix + prefix))

    def _full(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _bare(self, info: ObjectInfo) -> ObjectInfo:
        return replace(info, key=info.key.removeprefix(self._prefix))


class Retrying:
    """Asks again after each of ``pauses`` (seconds) where a store is `Unavailable`; other errors are answers.

    A write is only repeated if its data can be: a list, not an iterator. A read is not repeated once bytes of it
    were given out. What a conditional write did that seemed to fail is found out: the content that is there, if it is
    exactly what was to be written, is taken for ours. So writers who compete must write different things.
    """

    def __init__(
        self, store: ObjectStore, pauses: Sequence[float] = PAUSES, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        self._store, self._pauses, self._sleep = store, pauses, sleep

    def __repr__(self) -> str:
        return f"Retrying({self._store!r})"

    def stat(self, key: str) -> ObjectInfo:
        """See `ObjectStore`."""
        return self._again(lambda: self._store.stat(key))

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See `ObjectStore`."""

        def begin() -> tuple[bytes, Iterator[bytes]]:
            pieces = self._store.read(key, start, end)
            return next(pieces, b""), pieces

        first, rest = self._again(begin)
        yield first
        yield from rest

    def write(self, key: str, data: Iterable[bytes], *, only_if: str | None = None) -> ObjectInfo:
        """See `ObjectStore`."""
        if only_if is not None:
            return self._decided(key, b"".join(data), only_if)
        if iter(data) is data:
            return self._store.write(key, data)
        return self._again(lambda: self._store.write(key, data))

    def delete(self, key: str) -> None:
        """See `ObjectStore`."""
        self._again(lambda: self._store.delete(key))

    def walk(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `ObjectStore`. Keys come in order, so it goes on after the last one that came."""
        last, pauses = "", iter(self._pauses)
        while True:
            try:
                for info in self._store.walk(prefix):
                    if info.key > last:
                        yield info
                        last = info.key
            except Unavailable:
                pause = next(pauses, None)
                if pause is None:
                    raise
                self._sleep(pause)
            else:
                return

    def _decided(self, key: str, content: bytes, only_if: str) -> ObjectInfo:
        open_ = False

        def attempt() -> ObjectInfo:
            nonlocal open_
            try:
                return self._store.write(key, (content,), only_if=only_if)
            except Conflict:
                ours = self._if_it_says(key, content) if open_ else None
                if ours is None:
                    raise
                return ours
            except Unavailable:
                open_ = True
                raise

        return self._again(attempt)

    def _if_it_says(self, key: str, content: bytes) -> ObjectInfo | None:
        # Asked before it is read: if another writes in between, the answer is too old to change anything with.
        with suppress(NotFound):
            info = self._store.stat(key)
            if b"".join(self._store.read(key)) == content:
                return info
        return None

    def _again(self, ask: Callable[[], _T]) -> _T:
        for pause in self._pauses:
            try:
                return ask()
            except Unavailable:
                self._sleep(pause)
        return ask()


class Cached:
    """Whole objects, if ``immutable(key)``, are kept in the store ``near`` once they were read, up to ``limit`` bytes.

    Only for what is never written twice under one key. What another deletes may be read here for as long as it is kept;
    what was read longest ago for the first time goes first. A ``near`` that is full or broken costs time only.
    """

    def __init__(self, store: ObjectStore, near: ObjectStore, limit: int, immutable: Callable[[str], bool]) -> None:
        self._store, self._near, self._limit, self._immutable = store, near, limit, immutable
        self._lock = threading.Lock()
        self._size: int | None = None

    def __repr__(self) -> str:
        return f"Cached({self._store!r}, {self._near!r})"

    def stat(self, key: str) -> ObjectInfo:
        """See `ObjectStore`."""
        return self._store.stat(key)

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See `ObjectStore`. A part of an object that is not kept is read from the store alone."""
        if not self._immutable(key):
            yield from self._store.read(key, start, end)
            return
        yield from self._kept(key, start, end) or self._fetched(key, start, end)

    def write(self, key: str, data: Iterable[bytes], *, only_if: str | None = None) -> ObjectInfo:
        """See `ObjectStore`."""
        return self._store.write(key, data, only_if=only_if)

    def delete(self, key: str) -> None:
        """See `ObjectStore`."""
        self._store.delete(key)
        with suppress(Unavailable):
            self._near.delete(key)

    def walk(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `ObjectStore`."""
        return self._store.walk(prefix)

    def _kept(self, key: str, start: int, end: int | None) -> Iterator[bytes] | None:
        pieces = self._near.read(key, start, end)
        try:
            return chain((next(pieces, b""),), pieces)
        except (NotFound, Unavailable):
            return None

    def _fetched(self, key: str, start: int, end: int | None) -> Iterator[bytes]:
        if start == 0 and end is None:
            with suppress(NoSpace, Unavailable):
                self._keep(key)
            kept = self._kept(key, start, end)
            if kept:
                return kept
        return self._store.read(key, start, end)

    def _keep(self, key: str) -> None:
        size = self._store.stat(key).size
        if size > self._limit:
            return
        kept = self._near.write(key, self._store.read(key))
        if kept.size != size:
            self._near.delete(key)
            return
        with self._lock:
            self._size = size + (self._size if self._size is not None else self._measure() - size)
            if self._size > self._limit:
                self._make_room(key)

    def _measure(self) -> int:
        return sum(info.size for info in self._near.walk())

    def _make_room(self, newest: str) -> None:
        # A tenth more than needed, so that not every new object looks through all of them.
        kept = sorted(self._near.walk(), key=lambda info: info.modified)
        self._size = sum(info.size for info in kept)
        for info in kept:
            if self._size <= self._limit * 9 // 10:
                return
            if info.key == newest:  # times may be true to the second only
                continue
            self._near.delete(info.key)
            self._size -= info.size


class Limited:
    """At most ``up`` bytes a second are written and ``down`` read, by all threads together; None is no limit.

    Data comes out of it as an iterator, which cannot be repeated: `Retrying` goes around it, not inside.
    """

    def __init__(self, store: ObjectStore, up: float | None = None, down: float | None = None) -> None:
        self._store, self._up, self._down = store, _Pace(up), _Pace(down)

    def __repr__(self) -> str:
        return f"Limited({self._store!r})"

    def stat(self, key: str) -> ObjectInfo:
        """See `ObjectStore`."""
        return self._store.stat(key)

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See `ObjectStore`."""
        return self._down.keep(self._store.read(key, start, end))

    def write(self, key: str, data: Iterable[bytes], *, only_if: str | None = None) -> ObjectInfo:
        """See `ObjectStore`."""
        return self._store.write(key, self._up.keep(data), only_if=only_if)

    def delete(self, key: str) -> None:
        """See `ObjectStore`."""
        self._store.delete(key)

    def walk(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `ObjectStore`."""
        return self._store.walk(prefix)


class _Pace:
    """Lets bytes through at a rate."""

    def __init__(self, rate: float | None) -> None:
        self._rate, self._free, self._lock = rate, 0.0, threading.Lock()

    def keep(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            if self._rate:
                self._wait(len(piece), self._rate)
            yield piece

    def _wait(self, size: int, rate: float) -> None:
        with self._lock:
            begin = max(self._free, time.monotonic())
            self._free = begin + size / rate
            end = self._free
        time.sleep(max(0.0, end - time.monotonic()))
