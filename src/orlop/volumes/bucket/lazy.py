"""A volume whose files are brought here while they are used already: how that begins, goes on and ends.

    <folder>/lazy     what has been fetched of the copy in the same folder (`orlop.volumes.bucket.journal`)
    <run>/KEY~.hold   where the marks of its files are held (`orlop.volumes.bucket.holding`)
    <run>/KEY~.wait   who waits (`orlop.volumes.bucket.waiting`)

Nobody can see a placeholder without a mark: marks are made before the volume is mounted, by whoever attaches it; a
process of its own fetches (`orlop.volumes.bucket.fetching`). As long as anything is missing nothing is shipped, and no
other host has lost anything by that.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from orlop.errors import Corrupt, NoSpace, Unavailable
from orlop.kernel import freeze, handles, precontent
from orlop.kernel import syscalls as sc
from orlop.kernel.precontent import Group
from orlop.snapshots import placeholders
from orlop.snapshots.documents import SnapshotFile
from orlop.snapshots.placeholders import Contents, Placeholder, is_larger
from orlop.snapshots.repository import Repository
from orlop.snapshots.restore import find, restore
from orlop.snapshots.treereader import TreeReader
from orlop.volumes import image
from orlop.volumes.bucket import holding
from orlop.volumes.bucket.copy import Copy
from orlop.volumes.bucket.hydrator import Hydrator
from orlop.volumes.bucket.journal import Journal
from orlop.volumes.bucket.missing import Missing, suppress_gone
from orlop.volumes.bucket.sessions import Place
from orlop.volumes.bucket.twins import Twins
from orlop.volumes.bucket.waiting import Waiting

LEAST = 64 << 20
"""Bytes below which a volume is fetched before it is used: that takes about as long as starting a process does."""


class Unheld(Unavailable):
    """The marks of files that are still missing have gone: what is there must not be read."""


def is_worth_it(repository: Repository, file: SnapshotFile, wish: str, copy: Copy) -> bool:
    """Whether the files of a snapshot should be fetched while they are used; ``wish`` is the option ``lazy``."""
    trees = TreeReader(repository)
    if wish == "false" or not is_larger(trees, find(trees, file, file.top), 0 if wish == "true" else LEAST):
        return False
    with image.opened(copy.image) as root:
        return precontent.is_possible(root)


def begin(repository: Repository, file: SnapshotFile, copy: Copy, place: Place, now: Callable[[Path], int]) -> None:
    """Let the copy have all of a snapshot but the content of its files; ``now`` says what time it is there.

    Raises `NoSpace` if there are files that cannot be made so: a full volume has no room for what they need besides.
    """
    base, journal = copy.base, Journal(copy.journal)
    assert base is not None  # noqa: S101 - there was a beginning
    journal.clear()
    with _marking(copy, place) as (group, root), _twins(root) as twins:
        twins.clear()
        making = _Making(group, journal, twins)
        done = restore(repository, file, root / image.DATA, path=file.top, delete=True, lazy=making)
        if done.problems:
            twins.clear()
            raise NoSpace(f"'{os.fsdecode(done.problems[0].path)}': {done.problems[0].reason}")
        journal.sync()
        freeze.sync(root)
        copy.know(replace(base, lazy=making.size, complete=not making.size, restored=now(root)))
    journal.close()
    if not making.size:
        holding.forget(place)


class _Making:
    """Marks placeholders and writes them down; ``size`` bytes are missing in all."""

    def __init__(self, group: Group, journal: Journal, twins: Twins):
        self._group, self._journal, self._twins, self.size = group, journal, twins, 0

    def room(self, file: int, size: int, data: Sequence[tuple[int, int]]) -> None:
        self._twins.make(file, size, data)

    def made(self, file: int, told: Placeholder) -> None:
        self.size += told.size
        self._journal.file(handles.of(file), told.size)
        self._group.mark(file)


def resume(copy: Copy, place: Place) -> int:
    """After a crash: mark anew what is still missing, before anybody can see it; how many bytes are here already.

    Raises `Corrupt` if nobody knows what is missing.
    """
    base, left, made = copy.base, 0, Journal(copy.journal).files()
    assert base is not None  # noqa: S101 - it is what is resumed
    if not made:
        raise Corrupt(f"'{copy.journal}' is gone, which says what is missing; move '{copy.folder}' away to begin anew")
    with _marking(copy, place) as (group, root), sc.closing(os.open(root, os.O_RDONLY | os.O_DIRECTORY)) as folder:
        for handle, size in made.items():
            with suppress_gone(), sc.closing(handles.opened(folder, handle, os.O_RDONLY)) as fd:
                if placeholders.of(fd) is not None:
                    group.mark(fd)
                    left += size
    return max(base.lazy - left, 0)


def hydrate(
    repository: Repository, copy: Copy, place: Place, waiting: Waiting, meanwhile: Callable[[int], bool]
) -> bool:
    """Fetch what is missing, until it is all here or ``meanwhile`` says that it is over; whether it is all here.

    ``meanwhile`` is told how many bytes there were since this began. Raises `Unheld`.
    """
    held, base = holding.held(place.hold), copy.base
    if held is None or base is None:
        raise Unheld(holding.UNHELD)
    group, root = Group(held[0]), held[1]
    journal = Journal(copy.journal)
    with ExitStack() as stack:
        for close in (group.close, lambda: os.close(root), journal.close):
            stack.callback(close)
        missing = Missing(root, group, Contents(repository), journal, base.restored)

        def look() -> bool:
            _hold_again(place.hold, group, root)
            return meanwhile(missing.fetched)

        if not Hydrator(group, missing, waiting).run(look):
            return False
        sc.sync_filesystem(root)
        Twins(root).clear()
        copy.know(replace(base, lazy=0, complete=True))
        holding.forget(place)
    return True


def is_touched(copy: Copy) -> bool:
    """Whether anybody but orlop may have changed anything since the copy began; opens no file."""
    base, ours = copy.base, Journal(copy.journal).untouched()
    assert base is not None  # noqa: S101 - there was a beginning
    with image.opened(copy.image) as root:
        for folder, folders, files in os.walk(root / image.DATA, onerror=_fail):
            for name in (".", *folders, *files):
                status = os.lstat(f"{folder}/{name}")
                if status.st_ctime_ns > base.restored and status.st_ctime_ns not in ours.get(status.st_ino, ()):
                    return True
    return False


def _fail(error: OSError) -> None:
    raise error


@contextmanager
def _marking(copy: Copy, place: Place) -> Iterator[tuple[Group, Path]]:
    """A group for the copy, which is mounted nowhere, held from here on unless something goes wrong."""
    with image.opened(copy.image) as root:
        group = Group()
        try:
            with sc.closing(os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as folder:
                holding.start(place.hold, group.fd, folder)
            yield group, root
            _check(place.hold)
        except BaseException:
            holding.forget(place)
            raise
        finally:
            group.close()


@contextmanager
def _twins(root: Path) -> Iterator[Twins]:
    with sc.closing(os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as folder:
        twins = Twins(folder)
        try:
            yield twins
        finally:
            twins.close()


def _check(hold: Path) -> None:
    held = holding.held(hold)
    if held is None:
        raise Unavailable("the process that has to hold back readers does not start; look at the host's memory")
    for file in held:
        os.close(file)


def _hold_again(hold: Path, group: Group, root: int) -> None:
    """Whoever killed the holders has not killed us: we have what they had."""
    held = holding.held(hold)
    if held is None:
        holding.start(hold, group.fd, root)
        return
    for file in held:
        os.close(file)
