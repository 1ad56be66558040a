"""Who may write to a volume that many hosts can reach: one lease for each name, and an epoch that only grows.

The lease is the object ``leases/NAME``, changed by conditional writes only and never deleted::

    {"epoch": 7, "owner": {"host": ..., "boot": ..., "session": ...}, "ttl": 30, "renewed": 12, "until": 1800000000}

``epoch`` is the fencing token. ``session`` is random, so no two contents are ever alike, nor two versions. ``until`` is
for people: no clock is compared with another host's.

**One owner of an epoch.** An epoch begins with a write that replaces exactly the version that was read and has a
greater epoch. Of several who try, one replaces that version.

**One holder at a time.** The holder counts from *before* it sent the write that the store took, and stops believing
after ttl - margin. Who wants to take over counts from *after* the answer that showed it this version, and takes over
after ttl + margin, by a write which that version must still be there for. The holder's count began before the
other's, so it ends before, unless both clocks are a tenth off. They count suspension (``CLOCK_BOOTTIME``), and nothing
else is asked of them; in particular not what time it is. A contender that starts anew counts anew.

**What is not known** (a write that ended in `Unavailable`) is not guessed: the next attempt meets `Conflict`, reads
what is there, and if that is its own session it goes on from there. A write that arrives late names a version that is
gone.

What a holder may do is bounded by time; what it may *publish* is bounded by `orlop.volumes.bucket.heads`.
"""

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Final

from orlop.errors import Busy, Conflict, Corrupt, NotFound, Unavailable
from orlop.objects.store import ABSENT, ObjectStore, check_key

TTL: Final = 30.0
"""Seconds. A dead host's volume moves after about 33; a store may be away for 17 after a missed renewal."""
MARGIN: Final = 0.1
"""Of the ttl, on either side: 6 s together for clocks that differ, and for stopping a writer."""
RENEW: Final = 1 / 3
"""Of the ttl: two renewals may fail."""
POLL: Final = 1 / 15
"""Of the ttl, between two looks at a lease that another holds: it may be released."""
_ATTEMPTS: Final = 5
"""More than writes of ours can be under way, each of which can be met once."""


class Fenced(Conflict):
    """Another holds the lease now, or did: whatever was not published stays unpublished."""


@dataclass(frozen=True, slots=True)
class Clock:
    """``now`` counts seconds and counts them while the machine sleeps; ``wall`` is only shown to people."""

    now: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
    sleep: Callable[[float], object] = time.sleep
    wall: Callable[[], float] = time.time


@dataclass(frozen=True, slots=True)
class Owner:
    """One life of one process: who keeps ``session`` over a restart goes on with its lease."""

    host: str
    boot: str
    session: str = field(default_factory=lambda: secrets.token_hex(16))


@dataclass(frozen=True, slots=True)
class Record:
    """What the object says; ``owner`` None is a lease that is free."""

    epoch: int
    owner: Owner | None
    ttl: float
    renewed: int
    until: float


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease that this process has; ``since`` is by its own clock, from before the store was asked."""

    name: str
    record: Record
    owner: Owner
    version: str
    since: float

    @property
    def epoch(self) -> int:
        """The fencing token."""
        return self.record.epoch

    @property
    def renew_at(self) -> float:
        """When it is time to renew."""
        return self.since + self.record.ttl * RENEW

    @property
    def lost_at(self) -> float:
        """When it is lost, unless it is renewed: the writer has to be stopped by then."""
        return self.since + self.record.ttl * (1 - MARGIN)

    def held(self, now: float) -> bool:
        """Whether its holder may write."""
        return now < self.lost_at


def look(store: ObjectStore, name: str) -> Record | None:
    """What is known of the lease; None if there never was one. Raises `Corrupt`."""
    return _seen(store, name)[1]


def acquire(
    store: ObjectStore,
    name: str,
    owner: Owner,
    clock: Clock,
    *,
    ttl: float = TTL,
    patience: float = 0.0,
    above: int = 0,
) -> Lease:
    """Take the lease: at once if it is free or ``owner``'s own, else once its holder is silent for long enough.

    The new epoch is greater than ``above`` too, which is the head's, should somebody have deleted the lease. Raises
    `Busy` after ``patience`` seconds, and `Unavailable` with the outcome open: ask again with the same owner.
    """
    end, watch = clock.now() + patience, _Watch()
    while True:
        try:
            version, record = _seen(store, name)
        except Unavailable:
            if clock.now() >= end:
                raise
        else:
            if record is None or record.owner in (None, owner) or watch.over(version, record, clock.now()):
                try:
                    return _write(store, name, _next(record, owner, ttl, above), owner, version, clock)
                except Conflict:
                    continue
            if clock.now() >= end:
                raise Busy(f"volume {name!r} is in use on host {record.owner.host!r}; stop it there, or wait")
        clock.sleep(ttl * POLL)


def renew(store: ObjectStore, lease: Lease, clock: Clock) -> Lease:
    """Hold it for another ttl.

    Raises `Fenced` if another has it, and `Unavailable` with the outcome open: ask again until ``lost_at``. Later it
    may succeed still, if nobody took the lease; but the writer has to have been stopped.
    """
    for _ in range(_ATTEMPTS):
        record = replace(lease.record, renewed=lease.record.renewed + 1)
        try:
            return _write(store, lease.name, record, lease.owner, lease.version, clock)
        except Conflict:
            lease = _still_ours(store, lease)
    raise Unavailable(f"the lease of volume {lease.name!r} changes all the time: ask again")


def release(store: ObjectStore, lease: Lease, clock: Clock) -> None:
    """Let others have it at once; another's already is fine. The epoch stays, for the next one to exceed it.

    Who releases has stopped writing before, and does not go on if the outcome is open (`Unavailable`).
    """
    try:
        for _ in range(_ATTEMPTS):
            record = replace(lease.record, owner=None, renewed=lease.record.renewed + 1)
            try:
                _write(store, lease.name, record, lease.owner, lease.version, clock)
            except Conflict:
                lease = _still_ours(store, lease)
            else:
                return
    except Fenced:
        return
    raise Unavailable(f"the lease of volume {lease.name!r} changes all the time: ask again")


class _Watch:
    """Since when a version is known to be there, by our own clock."""

    def __init__(self) -> None:
        self._version, self._since = ABSENT, 0.0

    def over(self, version: str, record: Record, now: float) -> bool:
        if version != self._version:
            self._version, self._since = version, now
        return now - self._since >= record.ttl * (1 + MARGIN)


def _next(record: Record | None, owner: Owner, ttl: float, above: int) -> Record:
    if record is None:
        return Record(above + 1, owner, ttl, 1, 0)
    epoch = record.epoch if record.owner == owner else max(record.epoch, above) + 1
    return Record(epoch, owner, ttl, record.renewed + 1, 0)


def _still_ours(store: ObjectStore, lease: Lease) -> Lease:
    """As it is in the store after a write of ours whose answer was lost; raises `Fenced`."""
    version, record = _seen(store, lease.name)
    if record is None or record.owner != lease.owner or record.epoch != lease.epoch:
        holder = f"host {record.owner.host!r}" if record and record.owner else "nobody"
        raise Fenced(f"volume {lease.name!r} is not ours any more: {holder} has it now")
    return replace(lease, version=version, record=record)


def _seen(store: ObjectStore, name: str) -> tuple[str, Record | None]:
    # The version first: content that is newer than it does harm to nobody, for no write with it succeeds.
    key = _key(name)
    try:
        version = store.stat(key).version
        return version, _parsed(name, b"".join(store.read(key)))
    except NotFound:
        return ABSENT, None


def _write(store: ObjectStore, name: str, record: Record, owner: Owner, version: str, clock: Clock) -> Lease:
    since = clock.now()
    record = replace(record, until=round(clock.wall() + record.ttl))
    info = store.write(_key(name), (json.dumps(asdict(record)).encode(),), only_if=version)
    return Lease(name, record, owner, info.version, since)


def _key(name: str) -> str:
    return check_key(f"leases/{name}")


def _parsed(name: str, text: bytes) -> Record:
    try:
        fields = json.loads(text)
        owner = Owner(**fields.pop("owner")) if fields["owner"] else fields.pop("owner")
        record = Record(owner=owner, **fields)
        if record.epoch < 1 or not 0 < record.ttl < float("inf"):
            raise ValueError
    except (ValueError, TypeError, KeyError, AttributeError):
        raise Corrupt(f"the lease of volume {name!r} is no lease: look at the object {_key(name)!r}") from None
    return record
