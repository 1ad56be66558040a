"""What a store really does, tried out before anything depends on it.

Some stores accept a conditional write and ignore the condition (``rclone serve s3`` lets everyone win), some check it
and write in two steps (two of many win). Neither says so. A probe takes a few dozen small writes.
"""

import secrets
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, fields
from threading import Barrier
from typing import Final

from orlop.errors import Conflict, NotFound, OrlopError, Unavailable
from orlop.objects.store import ABSENT, ObjectInfo, ObjectStore
from orlop.objects.wrappers import Prefixed

RACERS: Final = 6
"""Writers at once; more find more, and some stores let those of one object wait for each other for a second each."""
ROUNDS: Final = 3


@dataclass(frozen=True, slots=True)
class Promises:
    """What a store kept in a probe; what it did not, it does not promise."""

    conditional_create: bool
    """A write with `ABSENT` is refused where something is."""
    conditional_update: bool
    """A write with a version is refused where there is another version, and only there."""
    one_creator: bool
    """Of several who create one object at once, one succeeds."""
    one_updater: bool
    """Of several who update one version at once, one succeeds."""
    reads_at_once: bool
    """What was written is read from then on."""
    lists_at_once: bool
    """What was written is listed from then on."""
    reads_parts: bool
    """A part of an object can be read."""

    @property
    def single_winner(self) -> bool:
        """Whether writers can agree on one of them with it."""
        return self.conditional_create and self.conditional_update and self.one_creator and self.one_updater

    def missing(self) -> list[str]:
        """What is not promised, in words."""
        return [_WORDS[field.name] for field in fields(self) if not getattr(self, field.name)]


_WORDS: Final = {
    "conditional_create": "it overwrites an object that was only to be created",
    "conditional_update": "it writes over a version other than the one that was asked for, or refuses the right one",
    "one_creator": "of several who create one object at once, not exactly one succeeds",
    "one_updater": "of several who update one object at once, not exactly one succeeds",
    "reads_at_once": "it does not read at once what was written",
    "lists_at_once": "it does not list at once what was written",
    "reads_parts": "it does not read parts of objects",
}


def probe(store: ObjectStore) -> Promises:
    """Try the store out, below the random key ``probe/...``, and leave nothing there.

    Raises `Unavailable` if it does not answer.
    """
    trial = _Trial(store)
    try:
        # First, for a store that does not answer at all is found out by what follows.
        parts = _reads_parts(trial)
        one_creator, one_updater = _races(trial)
        return Promises(
            conditional_create=_creates_once(trial),
            conditional_update=_compares(trial),
            one_creator=one_creator,
            one_updater=one_updater,
            reads_at_once=_reads(trial),
            lists_at_once=_lists(trial),
            reads_parts=parts,
        )
    finally:
        trial.clean_up()


def require_single_winner(store: ObjectStore) -> None:
    """Raises `Unavailable`, naming what the store ignores, if writers cannot agree on one of them with it."""
    promises = probe(store)
    if not promises.single_winner:
        why = "; ".join(promises.missing())
        raise Unavailable(f"{store!r} cannot tell one writer from another: {why}; use it from one host, or use another")


class _Trial(Prefixed):
    """A random place in the store, which knows what was written there: a list need not."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(store, f"probe/{secrets.token_hex(8)}/")
        self._written: set[str] = set()

    def write(self, key: str, data: Iterable[bytes], *, only_if: str | None = None) -> ObjectInfo:
        """See `ObjectStore`."""
        self._written.add(key)
        return super().write(key, data, only_if=only_if)

    def clean_up(self) -> None:
        """Leave nothing, or as little as the store lets us."""
        for key in self._written:
            with suppress(OrlopError):
                self.delete(key)


def _won(store: ObjectStore, key: str, text: bytes, only_if: str) -> bool:
    try:
        store.write(key, (text,), only_if=only_if)
    except Conflict:
        return False
    return True


def _creates_once(store: ObjectStore, key: str = "create") -> bool:
    won = [_won(store, key, text, ABSENT) for text in (b"first", b"second")]
    return won == [True, False] and _read(store, key) == b"first"


def _compares(store: ObjectStore, key: str = "update") -> bool:
    old = store.write(key, (b"first",)).version
    won = [_won(store, key, text, old) for text in (b"second", b"third")]
    return won == [True, False] and _read(store, key) == b"second"


def _races(store: ObjectStore) -> tuple[bool, bool]:
    """Whether one wins each race for an object that is not there, and each for one that is."""
    # All at the same time: where the writers of one object wait for each other, those of others need not.
    with ThreadPoolExecutor(2 * ROUNDS) as threads:
        created = [threads.submit(_one_wins, store, f"race-{number}", ABSENT) for number in range(ROUNDS)]
        updated = [threads.submit(_one_updates, store, f"update-{number}") for number in range(ROUNDS)]
        return all(race.result() for race in created), all(race.result() for race in updated)


def _one_updates(store: ObjectStore, key: str) -> bool:
    return _one_wins(store, key, store.write(key, (b"before",)).version)


def _one_wins(store: ObjectStore, key: str, only_if: str) -> bool:
    start = Barrier(RACERS)

    def run(number: int) -> bool | None:
        start.wait(60)
        # In a crowd a store may leave it open who has won; what is there then says it.
        with suppress(Unavailable):
            return _won(store, key, b"%d" % number, only_if)
        return None

    with ThreadPoolExecutor(RACERS) as threads:
        won = list(threads.map(run, range(RACERS)))
    there = _read(store, key)
    return there.isdigit() and won.pop(int(there)) is not False and True not in won


def _reads(store: ObjectStore, key: str = "read") -> bool:
    for text in (b"first", b"the second"):
        store.write(key, (text,))
        if _read(store, key) != text:
            return False
    return True


def _lists(store: ObjectStore, key: str = "list") -> bool:
    keys = [f"{key}/{n}" for n in range(3)]
    for each in keys:
        store.write(each, (b"",))
    return [info.key for info in store.walk(f"{key}/")] == keys


def _reads_parts(store: ObjectStore, key: str = "parts") -> bool:
    store.write(key, (b"0123456789",))
    with suppress(Unavailable, NotFound):
        return [b"".join(store.read(key, *part)) for part in ((2, 5), (7, None), (5, 90))] == [b"234", b"789", b"56789"]
    return False


def _read(store: ObjectStore, key: str) -> bytes:
    """Nothing where nothing is: after a race some stores have lost all that was written."""
    with suppress(NotFound):
        return b"".join(store.read(key))
    return b""
