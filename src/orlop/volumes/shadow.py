"""A volume as it was at one moment, kept beside its files in the same XFS (`orlop.volumes.mirror`).

Most of the work is done while the volume's users go on: the shadow follows the files, and the kernel tells what changes
meanwhile. Then the users stand still for as long as the last few names take: whatever is read from the shadow
afterwards, for however long, was so at that moment. The shadow stays: next time only what changed is cloned again, and
the clone that a file had before tells which of its blocks have changed.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from orlop.errors import Unavailable
from orlop.kernel import freeze, pause, reflink
from orlop.kernel import syscalls as sc
from orlop.kernel.reflink import Range
from orlop.kernel.watch import Overflow, Watch
from orlop.volumes import following, image
from orlop.volumes.mirror import NOBODY, Mirror, Ours, version

SHADOW, BEFORE = "shadow", "before"
_FEW = 64
"""Names that are updated while everybody stands still, rather than looking once more."""
_ROUNDS = 6
FILE: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""How what is kept of a file is opened: whatever stands there by now, nothing is followed or waited for."""


class Shadow:
    """The shadow in the filesystem whose root is the folder ``root``."""

    def __init__(self, root: Path, since: int = 0, ours: Ours = NOBODY):
        """``root`` holds the volume's files in `image.DATA`; see `Mirror` for ``since`` and ``ours``."""
        self._root, self._since, self._ours = root, since, ours
        self.touched: set[str] = set()
        self.is_changed = True
        self.folder = root / SHADOW

    def take(self, users: Sequence[int]) -> bool:
        """Let the shadow be what the files are at one moment; the processes ``users`` stand still for it.

        False if they cannot be held still: then each file is whole, but not all are of one moment.
        """
        mirror, watch = (
            Mirror(self._root / image.DATA, self.folder, self._root / BEFORE, self._since, self._ours),
            Watch(self._root),
        )
        device = self._root.stat().st_dev
        try:
            # Whatever is cloned has to be written back before: all at once is quicker than file by file.
            freeze.sync(self._root)
            mirror.sought = dict.fromkeys(pause.mapped(users, device), "")
            mirror.update_all()
            for _ in range(_ROUNDS):
                if not _follow(mirror, watch, few=_FEW):
                    break
            freeze.sync(self._root)
            with ExitStack() as stack:
                try:
                    stack.enter_context(pause.paused(users))
                    at_once = True
                except Unavailable:
                    at_once = mirror.may_follow = False
                _follow(mirror, watch)
                _follow_mapped(mirror, pause.mapped(users, device))
        finally:
            watch.close()
        freeze.sync(self._root)
        self.touched, self.is_changed = mirror.touched, mirror.changed > 0
        return at_once

    def changed(self, fd: int, inode: int, changed: int) -> list[Range] | None:
        """Where the shadow's open file may differ from what a snapshot says that it was; None if nobody remembers.

        ``inode`` and ``changed``, its change time in nanoseconds, tell what it was from all that ever was there.
        """
        status = os.fstat(fd)
        if status.st_ino == inode:
            return following.since(fd, changed)
        for name, is_exact in self._kept(inode, changed):
            with suppress(OSError), sc.closing(os.open(self._root / BEFORE / name, FILE)) as old:
                earlier = following.since(old, changed)
                if earlier is not None or is_exact:
                    return reflink.within([*(earlier or ()), *reflink.changed(old, fd)], status.st_size)
        return None

    def _kept(self, inode: int, changed: int) -> Iterator[tuple[str, bool]]:
        """What was replaced since `settle` and could have been that; and whether it is just that."""
        yield version(inode, changed), True
        yield from ((place.name, False) for place in (self._root / BEFORE).glob(f"{inode}.*"))

    def settle(self) -> None:
        """What the shadow is now has been saved: the clones before it are needed no more."""
        with suppress(FileNotFoundError), os.scandir(self._root / BEFORE) as entries:
            for entry in entries:
                os.unlink(entry.path)  # noqa: PTH108

    def drop(self) -> None:
        """Give the shadow up, for its room; the next one is made from nothing."""
        for name in (SHADOW, BEFORE):
            shutil.rmtree(self._root / name, ignore_errors=True)


def _follow(mirror: Mirror, watch: Watch, few: int = 0) -> bool:
    """Update what has changed; whether that was more than a ``few`` names."""
    try:
        paths = [Path(name) for name in watch.changed()]
    except Overflow:
        mirror.update_all()
        return True
    names = [str(path.relative_to(image.DATA)) for path in paths if path.is_relative_to(image.DATA)]
    mirror.update(names)
    return len(names) > few


def _follow_mapped(mirror: Mirror, inodes: set[int]) -> None:
    """What is written through mappings is told by nobody: such files are looked at, wherever they are."""
    names = [mirror.sought.get(inode, "") for inode in inodes]
    if all(names):
        mirror.update(names)
    else:
        mirror.update_all()
