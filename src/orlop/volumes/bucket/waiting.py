"""Who waits for files, by the kernel's numbers: written down in memory, so that another process can answer them.

An event that a process has read is told to no other. Of one that was read and not written down nobody knows; whoever
waits for it goes on when everything has been fetched, and the group is closed.

The kernel knows an event by the number of a file of the process that read it, also when that process is dead; and it
takes an answer for the oldest event of that number. So no process may open a file by a number that one before it had.
"""

import fcntl
import os
import resource
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Wait:
    """Somebody waits for the file ``handle`` with the event ``number``; see `orlop.kernel.precontent.Event`."""

    number: int
    thread: int
    handle: bytes
    is_access: bool
    offset: int
    count: int


_ROOM = 4096
"""Files that a process may have open, beside those that only take numbers: one for each who waits, and some more."""


class Waiting:
    """Those who wait, in the file ``path``, which is in memory."""

    def __init__(self, path: Path, numbers: Path):
        """Who is written down there already was left by a process that is dead: see `left`.

        ``numbers`` remembers which numbers were in use; whoever makes one of these has opened nothing before.
        """
        _leave_numbers(numbers)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._lock = threading.Lock()
        self._waiting: dict[int, Wait] = {}
        for line in os.pread(self._file, os.fstat(self._file).st_size, 0).decode().splitlines():
            self._read(line.split())

    def left(self) -> Sequence[Wait]:
        """Those that are waiting."""
        return list(self._waiting.values())

    def add(self, waits: Iterable[Wait]) -> None:
        """They wait from now on."""
        with self._lock:
            new = {wait.number: wait for wait in waits}
            self._waiting |= new
            lines = (
                f"{w.number} {w.thread} {w.handle.hex()} {w.is_access:d} {w.offset} {w.count}\n" for w in new.values()
            )
            os.write(self._file, "".join(lines).encode())

    def answered(self, number: int) -> None:
        """They wait no more."""
        with self._lock:
            self._waiting.pop(number, None)
            if self._waiting:
                os.write(self._file, f"{number}\n".encode())
            else:
                os.ftruncate(self._file, 0)

    def _read(self, words: list[str]) -> None:
        if len(words) == 1:
            self._waiting.pop(int(words[0]), None)
        elif len(words) == 6:
            number, thread, handle, is_access, offset, count = words
            wait = Wait(int(number), int(thread), bytes.fromhex(handle), is_access == "1", int(offset), int(count))
            self._waiting[wait.number] = wait


def _leave_numbers(path: Path) -> None:
    """From now on this process opens files only by numbers that none before it had; ``path`` remembers them."""
    first = int(path.read_text()) if path.exists() else 0
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    room = min(_ROOM, most // 4)
    if first + room > most:
        first = 0  # after so many kills nobody waits any more who did at the first
    path.write_text(str(first + room))
    resource.setrlimit(resource.RLIMIT_NOFILE, (first + room, most))
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    while first > fcntl.fcntl(nothing, fcntl.F_DUPFD_CLOEXEC, 0) + 1:
        pass
