"""Actors that share a store take turns, one operation each, in an order that is drawn; some are killed at theirs."""

import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

from orlop.objects.store import MemoryStore, ObjectInfo

PATIENCE = 60.0


class Killed(BaseException):
    """The actor is no more."""


class Turns:
    """Who comes next is drawn from ``seed``; whoever is in ``mortals`` dies at a turn with probability ``death``.

    Some seeds change actors often, others let one do much while the rest stand still: both find faults of their own.
    """

    def __init__(self, seed: int, mortals: Iterable[str] = (), death: float = 0.0) -> None:
        self.random, self._mortals, self._death = random.Random(seed), set(mortals), death
        self._steady = self.random.choice((0.0, 0.7, 0.9, 0.97))
        self._last = ""
        self.killed: set[str] = set()
        self.errors: list[BaseException] = []
        self._changed = threading.Condition()
        self._alive, self._waiting, self._turn = set[str](), set[str](), ""

    def play(self, actors: Mapping[str, Callable[[], object]]) -> None:
        """Until all have ended."""
        self._alive = set(actors)
        threads = [threading.Thread(target=self._act, args=actor, daemon=True) for actor in actors.items()]
        for thread in threads:
            thread.start()
        while self._next():
            pass
        for thread in threads:
            thread.join(PATIENCE)

    def take(self, name: str) -> None:
        """Wait for one's turn, or one's end."""
        with self._changed:
            if name in self.killed:
                raise Killed
            self._waiting.add(name)
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._turn == name, PATIENCE)
            self._turn = ""
            if name in self._mortals and self.random.random() < self._death:
                self.killed.add(name)
                raise Killed

    def _next(self) -> bool:
        with self._changed:
            assert self._changed.wait_for(lambda: self._waiting == self._alive, PATIENCE), self._alive - self._waiting
            if self._alive:
                self._turn = self._last = self._chosen()
                self._waiting.remove(self._turn)
                self._changed.notify_all()
            return bool(self._alive)

    def _chosen(self) -> str:
        if self._last in self._waiting and self.random.random() < self._steady:
            return self._last
        return self.random.choice(sorted(self._waiting))

    def _act(self, name: str, work: Callable[[], object]) -> None:
        try:
            self.take(name)
            work()
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001 - the test tells of it
            self.errors.append(error)
        finally:
            with self._changed:
                self._alive.remove(name)
                self._changed.notify_all()


class InTurns:
    """The store as one actor has it: each operation waits for its turn. ``lock`` is the lock it wrote last."""

    def __init__(self, store: MemoryStore, turns: Turns, actor: str) -> None:
        self._store, self._take, self.lock = store, partial(turns.take, actor), ""

    def stat(self, key: str) -> ObjectInfo:
        self._take()
        return self._store.stat(key)

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        self._take()
        return iter(list(self._store.read(key, start, end)))

    def write(self, key: str, data: Iterable[bytes], *, only_if: str | None = None) -> ObjectInfo:
        self._take()
        if key.startswith("locks/"):
            self.lock = key
        return self._store.write(key, data, only_if=only_if)

    def delete(self, key: str) -> None:
        self._take()
        self._store.delete(key)

    def walk(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """In two pages, as stores list: what others change in between is seen in the second only."""
        self._take()
        found = sorted(self._store.walk(prefix), key=_key)
        first = found[: len(found) // 2]
        self._take()
        last = first[-1].key if first else ""
        return iter([*first, *(info for info in sorted(self._store.walk(prefix), key=_key) if info.key > last)])


def _key(info: ObjectInfo) -> str:
    return info.key
