"""A volume's files from this host to its bucket, while they are in use, and from there to this host."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from orlop.errors import Unavailable
from orlop.kernel.processes import gently
from orlop.snapshots.nodes import Node
from orlop.snapshots.parent import Same
from orlop.snapshots.report import refuse
from orlop.snapshots.repository import Repository
from orlop.snapshots.restore import restore
from orlop.snapshots.save import About, save
from orlop.volumes import image
from orlop.volumes.bucket.backend import VOLUME
from orlop.volumes.bucket.catalog import Definition
from orlop.volumes.bucket.copy import Base, Copy
from orlop.volumes.bucket.journal import Journal
from orlop.volumes.bucket.lazy import is_touched
from orlop.volumes.comparing import by_blocks
from orlop.volumes.sources import ShadowSource, Users

EPOCH, HOW = "orlop.epoch=", "orlop.how="
_TICK = 0.05
"""Seconds: more than the clock of a filesystem takes from one time stamp to the next."""


def fetch(repository: Repository, definition: Definition, snapshot: str, copy: Copy) -> Base:
    """Let the copy be what ``snapshot`` is (empty: nothing at all); again after a crash is fine. Raises `Corrupt`."""
    base = Base(definition.id, snapshot)
    with image.opened(copy.image) as root:
        if snapshot:
            file = repository.snapshot(snapshot)
            done = restore(repository, file, root / image.DATA, path=file.top, delete=True)
            refuse(done.problems, f"volume {definition.name!r}")
        base = replace(base, complete=True, restored=clock_of(root))
    return copy.know(base)


def ship(
    repository: Repository,
    definition: Definition,
    copy: Copy,
    epoch: int,
    users: Users,
    publish: Callable[[str], None],
    *,
    in_use: bool,
) -> Base:
    """Let the volume be what the copy is at this moment; ``publish`` makes a snapshot its head, or raises.

    While it is ``in_use``, its users come first.

    Whatever is killed: the head is the old snapshot or the new one, and this host knows which two it can be.
    """
    base = copy.base
    if base is None or not base.complete:
        raise Unavailable(f"volume {definition.name!r} has no files here that could be shipped")
    copy.doubt()
    source = _source(copy, base, users)
    with source.still() as still:
        tags = [VOLUME + definition.id, f"{EPOCH}{epoch}", HOW + still.how]
        saving = partial(
            save,
            repository,
            still.folder,
            About(definition.name, time.time_ns(), tags=tags),
            parent=base.snapshot or None,
            changed=by_blocks(source, base.snapshot),
            same=_as_restored(source) if base.restored else None,
            clones=still.are_clones,
        )
        saved = gently(saving) if in_use else saving()
    if not saved.is_complete:
        refuse(saved.problems, f"volume {definition.name!r} is not shipped")
    copy.know(replace(base, pending=saved.snapshot, epoch=epoch))
    publish(saved.snapshot)
    new = copy.know(Base(base.id, saved.snapshot, epoch=epoch, complete=True))
    copy.journal.unlink(missing_ok=True)
    source.settle(saved.snapshot)
    if base.snapshot:
        repository.forget(base.snapshot)
    return new


def is_ahead(copy: Copy) -> bool:
    """Whether a copy that nobody uses has anything that was never published."""
    base = copy.base
    if base is None or base.pending:
        return base is not None
    if base.lazy:
        return is_touched(copy)
    source = _source(copy, base, list)
    with source.still():
        return source.is_touched if base.restored else source.is_changed


def _source(copy: Copy, base: Base, users: Users) -> ShadowSource:
    """The copy's files, and who but orlop has touched them since they were restored."""
    return ShadowSource(copy.image, users, since=base.restored, ours=Journal(copy.journal).untouched())


def _as_restored(source: ShadowSource) -> Same:
    """Files that nobody touched since they were restored are what the snapshot says, whatever their inodes are."""

    def same(path: bytes, status: os.stat_result, node: Node) -> bool:
        del status, node
        return not source.changed_since(os.fsdecode(path))

    return same


def clock_of(root: Path) -> int:
    """The time by the clock of the filesystem at ``root``; whatever is changed from now on has a later one."""
    # No new file: there may be no room for one.
    os.utime(root)
    found = root.stat().st_ctime_ns
    time.sleep(_TICK)
    return found
