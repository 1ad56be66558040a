"""How the files of a volume are read as they were at one moment, while its users go on.

    shadow      XFS of ours: a copy that shares its blocks, made while the users stand still for milliseconds
    subvolume   btrfs: the filesystem's own snapshot, made while the users stand still
    cut         the same of users that cannot be held still: as after a power cut
    frozen      another filesystem of ours, or one that is full: it is read while its writers wait
    paused      any other, if that is wished: the same, while the containers that use it are paused
    live        any other: each file is read while others may change
    unused      nobody uses it

What a way of reading promises is written into each snapshot, under the name above.
"""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from orlop.errors import Unavailable
from orlop.kernel import btrfs, freeze, pause, reflink
from orlop.kernel import syscalls as sc
from orlop.kernel.reflink import Range
from orlop.volumes import image
from orlop.volumes.mirror import NOBODY, Ours
from orlop.volumes.shadow import FILE, Shadow

Users = Callable[[], Sequence[int]]
"""The processes that use the volume now."""


@dataclass(frozen=True, slots=True)
class Still:
    """The files of one moment, below ``folder``, and ``how`` it was brought about.

    ``is_copy``: what happens to the volume from now on does not change them; otherwise somebody has to wait.
    ``are_clones``: they are files of their own, made for this, which nobody but us ever writes to.
    """

    folder: Path
    how: str
    is_copy: bool = False
    are_clones: bool = False


@dataclass(frozen=True, slots=True)
class Was:
    """What the snapshot ``snapshot`` says that a file was: its ``inode``, and when that had ``changed`` (nanoseconds).

    What was saved last may be another: a volume can be saved to several repositories, and snapshots can be deleted.
    """

    snapshot: str
    inode: int
    changed: int


class Source(Protocol):
    """The files of one volume, for the one who saves them."""

    makes_copy: bool
    """Whether `still` shows a copy, for which nobody has to wait; but for one that a full volume has no room for."""

    def ahead(self) -> Path | None:
        """Where to read as much as possible before `still`, because that keeps others waiting; None if it does not."""

    def still(self) -> AbstractContextManager[Still]:
        """The files of one moment, for as long as the context lasts."""

    def changed(self, path: str, fd: int, was: Was) -> Sequence[Range] | None:
        """Where the file ``path`` of `still`, open as ``fd``, may differ from what it ``was``; None if nobody knows."""

    def settle(self, snapshot: str) -> None:
        """What `still` showed last has been saved as ``snapshot``."""


class ShadowSource:
    """An XFS of ours, with its shadow."""

    makes_copy = True

    def __init__(self, file: Path, users: Users, since: int = 0, ours: Ours = NOBODY):
        """``file`` has the filesystem, mounted or not; `changed_since` is about ``since``, ``ours``: see `Mirror`."""
        self._file, self._users, self._since, self._shadow = file, users, since, Shadow(Path("/"))
        self._ours = ours
        self._has_no_room = False

    def ahead(self) -> Path | None:
        """See `Source`: the shadow does that itself."""
        return None

    @contextmanager
    def still(self) -> Iterator[Still]:
        """See `Source`."""
        with _alone(self._file), image.opened(self._file) as root, ExitStack() as stack:
            self._shadow = Shadow(root, self._since, self._ours)
            if image.is_cloned(self._file):
                self._shadow.drop()
                image.forget_clone(self._file)
            try:
                at_once = self._shadow.take(self._users())
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                still = stack.enter_context(self._without(root))
            else:
                still = Still(self._shadow.folder, "shadow" if at_once else "live", is_copy=True, are_clones=True)
            yield still
            # What a shadow keeps of old files takes the volume's room.
            if image.is_scarce(root):
                self._shadow.drop()

    @contextmanager
    def _without(self, root: Path) -> Iterator[Still]:
        """A full volume has no room for a shadow: the files themselves, then."""
        self._has_no_room = True
        self._shadow.drop()
        if not self._users():
            yield Still(root / image.DATA, "unused")
            return
        with freeze.frozen(root):
            yield Still(root / image.DATA, "frozen")

    @property
    def is_changed(self) -> bool:
        """Whether anything is different from what `still` showed before, as far as that can be told."""
        return self._has_no_room or self._shadow.is_changed

    @property
    def is_touched(self) -> bool:
        """Whether anything changed after ``since``, as far as that can be told."""
        return self._has_no_room or bool(self._shadow.touched)

    def changed_since(self, path: str) -> bool:
        """Whether the file ``path`` may be another one than it was at ``since``, told while `still` lasts.

        A folder that came from elsewhere has files that did not change.
        """
        return self._has_no_room or any(
            str(place) in self._shadow.touched for place in (Path(path), *Path(path).parents[:-1])
        )

    def changed(self, path: str, fd: int, was: Was) -> Sequence[Range] | None:
        """See `Source`."""
        del path  # it may have been renamed since
        return self._shadow.changed(fd, was.inode, was.changed)

    def settle(self, snapshot: str) -> None:
        """See `Source`."""
        del snapshot  # each file says for itself what it was
        with _alone(self._file), image.opened(self._file) as root:
            Shadow(root).settle()


class SubvolumeSource:
    """A subvolume of btrfs; its last two snapshots are kept beside it."""

    makes_copy = True

    def __init__(self, folder: Path, users: Users):
        """``folder`` is the subvolume."""
        self._folder, self._users = folder, users
        self._now, self._before = folder.with_name("still"), folder.with_name("before")
        self._saved_as = folder.with_name("before.snapshot")

    def ahead(self) -> Path | None:
        """See `Source`."""
        return None

    @contextmanager
    def still(self) -> Iterator[Still]:
        """See `Source`."""
        btrfs.delete(self._now)
        yield Still(self._now, self.snapshot(self._now), is_copy=True)

    def snapshot(self, place: Path, *, read_only: bool = True) -> str:
        """Make ``place`` a subvolume with the files of one moment; how that was brought about."""
        freeze.sync(self._folder)
        # Of what is not synced btrfs may take a later write and not an earlier one: nobody may write meanwhile.
        with ExitStack() as stack:
            try:
                stack.enter_context(pause.paused(self._users()))
                how = "subvolume"
            except Unavailable:
                how = "cut"
            btrfs.snapshot(self._folder, place, read_only=read_only)
        return how

    def changed(self, path: str, fd: int, was: Was) -> Sequence[Range] | None:
        """See `Source`."""
        # Neither inode nor time tells enough: what is written within a tick of the clock after a snapshot moves none.
        with suppress(OSError), sc.closing(os.open(self._before / path, FILE)) as old:
            if self._saved_as.read_text() == was.snapshot and os.fstat(old).st_ino == was.inode:
                return reflink.changed(old, fd)
        return None

    def settle(self, snapshot: str) -> None:
        """See `Source`."""
        self._forget()
        self._now.rename(self._before)
        # Last: without it, nothing is compared with what is kept.
        self._saved_as.write_text(snapshot)

    def drop(self) -> None:
        """Delete what is kept; the volume goes."""
        btrfs.delete(self._now)
        self._forget()

    def _forget(self) -> None:
        self._saved_as.unlink(missing_ok=True)
        btrfs.delete(self._before)


class PlainSource:
    """Files of whatever kind, where they are mounted; ``hold`` makes them stand still, if anything does."""

    makes_copy = False

    def __init__(self, folder: Path, users: Users, hold: Callable[[], AbstractContextManager[None]], how: str):
        """``how`` is what to say of files that ``hold`` has made stand still."""
        self._folder, self._users, self._hold, self._how = folder, users, hold, how

    def ahead(self) -> Path | None:
        """See `Source`."""
        return self._folder if self._users() and self._how != "live" else None

    @contextmanager
    def still(self) -> Iterator[Still]:
        """See `Source`."""
        if not self._users():
            yield Still(self._folder, "unused")
            return
        with self._hold():
            yield Still(self._folder, self._how)

    def changed(self, path: str, fd: int, was: Was) -> Sequence[Range] | None:
        """See `Source`: nothing is kept."""

    def settle(self, snapshot: str) -> None:
        """See `Source`."""


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Nobody else touches the shadow in ``file`` meanwhile."""
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def frozen(folder: Path, users: Users) -> Source:
    """The files of a filesystem that can be frozen."""
    return PlainSource(folder, users, lambda: freeze.frozen(folder), "frozen")


def plain(folder: Path, users: Users, *, paused: bool) -> Source:
    """Files of which nothing is known; their users are ``paused`` meanwhile, if that is wished."""
    if paused:
        return PlainSource(folder, users, lambda: pause.paused(users()), "paused")
    return PlainSource(folder, users, nullcontext, "live")
