"""One placeholder, on its way to being a file like any other: nobody ever sees more of it than is there.

All that can happen to a file before it is fetched asks first, with one exception: O_TRUNC cuts a file to nothing after
its opening was allowed. Then what was to be fetched is not wanted any more. It is told by the file's length, and so the
last part is always fetched before anybody may open the file: no other part can make a file as long as it was.
"""

import os
import platform
import stat
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from orlop.kernel.precontent import Group
from orlop.snapshots import placeholders, target
from orlop.snapshots.placeholders import CAPABILITY, Contents, Placeholder
from orlop.snapshots.runs import Run
from orlop.volumes.bucket.journal import Journal
from orlop.volumes.bucket.twins import Twins
from orlop.volumes.bucket.waiting import Wait

_IN_PLACE: Final[Mapping[str, Collection[int]]] = {
    "x86_64": {0, 1, 9, 17, 18, 19, 20, 40, 59, 187, 275, 295, 296, 322, 326, 327, 328},
    "aarch64": {63, 64, 65, 66, 67, 68, 69, 70, 71, 76, 213, 221, 222, 281, 285, 286, 287},
}
"""The calls read, write, mmap, pread64, pwrite64, readv, writev, sendfile, execve, readahead, splice, preadv, pwritev,
execveat, copy_file_range, preadv2 and pwritev2: what they do to a file they do in the range that they name."""


class LazyFile:
    """The file ``handle``. Whoever calls anything holds its ``lock``, and has it open for writing."""

    def __init__(
        self, handle: bytes, told: Placeholder, contents: Contents, group: Group, journal: Journal, twins: Twins
    ):
        """``told`` is what it says of itself."""
        self.handle, self.told, self.lock, self.is_over = handle, told, threading.Lock(), False
        self._contents, self._group, self._journal, self._twins = contents, group, journal, twins
        self._parts: Sequence[Run] = ()
        self._done: set[int] = set()
        self._is_touched, self._changed, self._path = False, 0, ""
        self._capability = told.capability
        self._status: os.stat_result

    @property
    def holes(self) -> int:
        """Bytes that were there from the beginning."""
        return sum(part.end - part.start for part in self._parts if part.is_hole)

    def had(self, parts: Iterable[int]) -> None:
        """These parts were fetched by a process before this one, which may have let somebody in."""
        self._done.update(parts)
        self._is_touched = True

    def wanted(self, file: int, wait: Wait) -> list[int]:
        """The parts that must be there before whoever waits may go on."""
        self._is_touched |= self.told.is_large
        status, every = os.fstat(file), range(len(self._all()))
        if not wait.is_access:
            # Tools that leave out holes believe this number, and parts that are not there look like holes to them.
            return list(every) if status.st_blocks * 512 < status.st_size - self.holes else [every[-1]]
        # A new length, a copy of everything, what leaves a hole, what moves the rest: simply all of it.
        if not wait.count or wait.offset > status.st_size or not _is_in_place(wait.thread):
            return list(every)
        end = wait.offset + wait.count
        return [number for number in every if self._parts[number].start < end and wait.offset < self._parts[number].end]

    def rest(self) -> list[int]:
        """The parts that are not there yet."""
        return [number for number in range(len(self._all())) if number not in self._done]

    def begin(self, file: int, since: int, numbers: Iterable[int]) -> list[Run]:
        """What has to be fetched for these parts to be there: the last one with them, and first; nothing if it is over.

        Who has changed the file after ``since`` was not us.
        """
        self._status, self._path = os.fstat(file), _path(file)
        self._capability = _capability(file) or self._capability
        if self.is_over or self._is_cut(file):
            return []
        changed = self._status.st_ctime_ns
        self._is_touched |= changed != self._changed if self._changed else changed > since
        self._is_touched |= self._status.st_nlink > 1 or not self._path
        last = len(self._all()) - 1
        missing = {last, *numbers} - self._done
        return [self._parts[number] for number in sorted(missing, key=lambda number: (number != last, number))]

    def write(self, file: int, parts: Iterable[Run], sealed: Mapping[bytes, memoryview]) -> None:
        """Write ``parts``, as nobody had: to be followed by a sync, and `settle`."""
        for part in parts:
            self._place(file, part, self._contents.content(part, sealed))
            if os.fstat(file).st_size < self.told.size:
                # Cut before we wrote. Since then nobody could write: he would have had to wait for us.
                os.ftruncate(file, 0)
                self._is_cut(file)
                return
        self._tidy(file)
        self._note(file)

    def _place(self, file: int, part: Run, content: Iterable[bytes]) -> None:
        if self.told.is_large:
            self._twins.put(file, self.handle, self.told.size, part.start, content)
            return
        place = part.start
        for piece in content:
            target.fill(file, piece, place)
            place += len(piece)

    def settle(self, file: int, parts: Iterable[Run]) -> None:
        """``parts`` are on disk: they are never written again, and when all are there, nobody asks any more."""
        if self.is_over:
            return
        numbers = [self._parts.index(part) for part in parts]
        if self.told.is_large and numbers:
            self._journal.parts(self.handle, numbers)
        self._done.update(numbers)
        whole = len(self._done) == len(self._parts)
        if whole:
            os.removexattr(file, placeholders.ATTRIBUTE)
        self._note(file)
        if whole:
            self._finish(file)

    def _all(self) -> Sequence[Run]:
        if not self._parts:
            self._parts = self._contents.parts(self.told)
            self._done.update(number for number, part in enumerate(self._parts) if part.is_hole)
        return self._parts

    def _note(self, file: int) -> None:
        """Remember when we changed the file, unless others have."""
        status = os.fstat(file)
        self._changed = status.st_ctime_ns
        # A file that was moved meanwhile would be taken for the one that was there.
        self._is_touched |= _path(file) != self._path
        if not self._is_touched:
            self._journal.ours(status.st_ino, self._changed)

    def _tidy(self, file: int) -> None:
        """What a write takes away: times, capabilities, and without CAP_FSETID the bits of set-user-ID."""
        if os.fstat(file).st_mode != self._status.st_mode:
            os.fchmod(file, stat.S_IMODE(self._status.st_mode))
        if self._capability and not _capability(file):
            os.setxattr(file, CAPABILITY, self._capability)
        os.utime(file, ns=(self._status.st_atime_ns, self._status.st_mtime_ns))

    def _is_cut(self, file: int) -> bool:
        if os.fstat(file).st_size >= self.told.size:
            return False
        os.removexattr(file, placeholders.ATTRIBUTE)
        self._finish(file)
        return True

    def _finish(self, file: int) -> None:
        self._group.unmark(file)
        self._twins.drop(self.handle)
        self.is_over = True


def _capability(file: int) -> bytes:
    try:
        return os.getxattr(file, CAPABILITY)
    except OSError:
        return b""


def _path(file: int) -> str:
    """Where an open file is in its filesystem; nothing if nobody can say."""
    path = os.readlink(f"/proc/self/fd/{file}")  # noqa: PTH115
    return path if path.startswith("/") and not path.endswith(" (deleted)") else ""


def _is_in_place(thread: int) -> bool:
    """Whether what ``thread`` waits for changes no more of a file than it says; False if nobody can tell.

    Of truncate(2) and fallocate(2) the kernel names a few bytes, whatever becomes of the rest.
    """
    try:
        call = Path(f"/proc/{thread}/syscall").read_text().split(" ", 1)[0]
    except OSError:
        return False
    return call.isdecimal() and int(call) in _IN_PLACE.get(platform.machine(), ())
