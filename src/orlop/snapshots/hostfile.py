"""A file that this host keeps of a repository, and can do without: sealed as everything in a repository is.

It is a row of parts, each with its length before it. A crash may leave half of it, or none; one that is damaged, or of
another repository, cannot be read. It is replaced, and never written over.
"""

import contextlib
import os
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from orlop.errors import Corrupt
from orlop.snapshots.seal import Seal

_ABANDONED: Final = 600
"""Seconds without a byte after which nobody writes a file any more."""
_LENGTH: Final = struct.Struct("<Q")


class HostFile:
    """The file ``path``, behind a repository's seal; it need not be there."""

    def __init__(self, path: Path, seal: Seal) -> None:
        self._path, self._seal = path, seal

    def parts(self) -> Iterator[bytes]:
        """Its parts; raises `Corrupt` where one of them cannot be read, and if there is no file."""
        try:
            with self._path.open("rb") as file:
                left = os.fstat(file.fileno()).st_size
                while head := file.read(_LENGTH.size):
                    (length,) = _LENGTH.unpack(head)
                    left -= _LENGTH.size + length
                    if left < 0:
                        raise Corrupt(f"{self._path} ends too early")
                    yield self._seal.open(file.read(length))
        except (OSError, struct.error) as error:
            raise Corrupt(f"{self._path} cannot be read: {error}") from None

    def replace(self, parts: Iterable[bytes]) -> bool:
        """Write it anew; False for a disk that takes nothing, which is no reason to fail."""
        new = self._path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.new")
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._sweep()
            try:
                self._write(new, parts)
            finally:
                new.unlink(missing_ok=True)
            return True
        return False

    def _write(self, new: Path, parts: Iterable[bytes]) -> None:
        with open(new, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            for part in parts:
                sealed = self._seal.seal(part)
                file.write(_LENGTH.pack(len(sealed)) + sealed)
        new.replace(self._path)

    def _sweep(self) -> None:
        """Delete what killed processes have left."""
        for left in self._path.parent.glob(f"{self._path.name}.*.new"):
            if time.time() - left.stat().st_mtime > _ABANDONED:
                left.unlink()
