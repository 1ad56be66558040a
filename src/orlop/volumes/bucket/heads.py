"""Which snapshot a volume is at: the head, which only the newest epoch may move.

The head is the object ``heads/NAME``, changed by conditional writes only::

    {"epoch": 7, "session": ..., "snapshot": "0abc...", "count": 41}

**Why no two writers can both publish.** A new holder *claims* the head first: it writes its epoch into it, keeping the
snapshot, on condition of the version that it read; only then does it restore that snapshot. Every publication
replaces the version of the claim, or of the publication before it. So one from an older epoch either came before the
claim, and is what the new holder restores; or it meets another version, reads a greater epoch, and is `Fenced` for
good. That holds however late a write arrives, whatever the clocks say, and also if the old holder never learns that
it has lost its lease.

``session`` tells two holders of one epoch apart, which there can only be if somebody deleted a lease; ``count`` makes
every content, and so every version, a new one.
"""

import json
from dataclasses import dataclass, replace
from typing import Final

from orlop.errors import Conflict, Corrupt, NotFound, Unavailable
from orlop.objects.store import ABSENT, ObjectStore, check_key
from orlop.volumes.bucket.lease import Fenced, Lease

NOTHING: Final = ""
"""The snapshot of a volume that has none yet."""
_ATTEMPTS: Final = 20
"""A head is moved by one or two others while we look, never by twenty."""


@dataclass(frozen=True, slots=True)
class Head:
    """What the object said in ``version``; ``session`` and ``epoch`` are of the holder who wrote it."""

    name: str
    epoch: int
    session: str
    snapshot: str
    count: int
    version: str


def look(store: ObjectStore, name: str) -> Head | None:
    """The head; None if nobody has claimed it yet. Raises `Corrupt`."""
    key = _key(name)
    try:
        version = store.stat(key).version
        text = b"".join(store.read(key))
    except NotFound:
        return None
    try:
        fields = json.loads(text)
        return Head(name, int(fields["epoch"]), fields["session"], fields["snapshot"], int(fields["count"]), version)
    except (ValueError, TypeError, KeyError):
        raise Corrupt(f"the head of volume {name!r} is no head: look at the object {key!r}") from None


def claim(store: ObjectStore, lease: Lease) -> Head:
    """Write the epoch of ``lease`` into the head; what it returns has the snapshot to restore. Again is fine.

    Raises `Fenced` if a later holder has claimed it, and `Unavailable` with the outcome open: ask again.
    """
    for _ in range(_ATTEMPTS):
        found = look(store, lease.name) or Head(lease.name, 0, "", NOTHING, 0, ABSENT)
        if _is_of(found, lease.epoch, lease.owner.session):
            return found
        _refuse_older(found, lease.epoch)
        try:
            return _write(store, replace(found, epoch=lease.epoch, session=lease.owner.session))
        except Conflict:
            continue
    raise Unavailable(f"the head of volume {lease.name!r} changes all the time: ask again")


def publish(store: ObjectStore, head: Head, snapshot: str) -> Head:
    """Move the head that `claim` or `publish` returned to ``snapshot``; again, after a lost answer, is fine.

    Raises `Fenced` if a later holder has claimed it, and `Unavailable` with the outcome open: ask again.
    """
    for _ in range(_ATTEMPTS):
        try:
            return _write(store, replace(head, snapshot=snapshot))
        except Conflict:
            found = look(store, head.name)
        if found is None or not _is_of(found, head.epoch, head.session):
            raise Fenced(f"the head of volume {head.name!r} is not ours to move: epoch {head.epoch} is over")
        if found.snapshot == snapshot:
            return found
        head = found
    raise Unavailable(f"the head of volume {head.name!r} changes all the time: ask again")


def _is_of(head: Head, epoch: int, session: str) -> bool:
    return head.epoch == epoch and head.session == session


def _refuse_older(found: Head, epoch: int) -> None:
    if found.epoch >= epoch:
        raise Fenced(f"the head of volume {found.name!r} is of epoch {found.epoch}, and ours is {epoch}: take it again")


def _write(store: ObjectStore, head: Head) -> Head:
    head = replace(head, count=head.count + 1)
    fields = {"epoch": head.epoch, "session": head.session, "snapshot": head.snapshot, "count": head.count}
    info = store.write(_key(head.name), (json.dumps(fields).encode(),), only_if=head.version)
    return replace(head, version=info.version)


def _key(name: str) -> str:
    return check_key(f"heads/{name}")
