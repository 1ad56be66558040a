"""What has been fetched of a copy's large files, and which files nobody has touched since they were: one line each.

    file HANDLE SIZE    a placeholder of so many bytes was made, wherever it is by now
    part HANDLE N       part N of a large one is on disk; it is never fetched again: others may have written to it
    ours INODE CTIME    when its time of change was this, nobody but us had touched a file

Lines are only added. A part is written down, durably, before anybody may write to it; the rest may be lost.
"""

import errno
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

_BROKEN = "?"


class Journal:
    """The file ``path``; threads may share it."""

    def __init__(self, path: Path):
        """Nothing is opened before it is needed."""
        self._path, self._lock, self._file = path, threading.Lock(), -1

    def clear(self) -> None:
        """Forget everything; nothing there is fine."""
        self.close()
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file; the next line opens it again."""
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    def sync(self) -> None:
        """What was written down is on disk."""
        with self._lock:
            os.fdatasync(self._open())

    def file(self, handle: bytes, size: int) -> None:
        """A placeholder was made; durable after `sync`."""
        self._add(f"file {handle.hex()} {size}")

    def parts(self, handle: bytes, numbers: list[int]) -> None:
        """These parts are there: durably so when this returns."""
        self._add(*(f"part {handle.hex()} {number}" for number in numbers))
        self.sync()

    def ours(self, inode: int, changed: int) -> None:
        """It was us who changed a file last, and nobody has before."""
        self._add(f"ours {inode} {changed}")

    def files(self) -> dict[bytes, int]:
        """Every placeholder that was made, and its size."""
        return {bytes.fromhex(name): int(size[0]) for kind, name, *size in self._lines() if kind == "file"}

    def done(self) -> Mapping[bytes, set[int]]:
        """The parts of large files that are there."""
        found: dict[bytes, set[int]] = {}
        for kind, name, *number in self._lines():
            if kind == "part":
                found.setdefault(bytes.fromhex(name), set()).update(map(int, number))
        return found

    def untouched(self) -> Mapping[int, set[int]]:
        """When files, by their inode, were changed by us, and by nobody before; after a crash any of these may hold."""
        found: dict[int, set[int]] = {}
        for kind, inode, *changed in self._lines():
            if kind == "ours":
                found.setdefault(int(inode), set()).add(int(changed[0]))
        return found

    def _lines(self) -> Iterator[list[str]]:
        if self._path.exists():
            # What follows the last line break was never finished, and neither was a line that ends like that.
            lines = self._path.read_text().split("\n")[:-1]
            yield from (line.split() for line in lines if not line.endswith(_BROKEN))

    def _add(self, *lines: str) -> None:
        text = "".join(f"{line}\n" for line in lines).encode()
        with self._lock:
            if os.write(self._open(), text) < len(text):
                self._end_line()
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def _open(self) -> int:
        if self._file < 0:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._end_line()
        return self._file

    def _end_line(self) -> None:
        """A crash may have left half a line, which is not to become half of another."""
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, f"{_BROKEN}\n".encode())
