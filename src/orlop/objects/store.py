"""What a place for objects has to provide: `ObjectStore`, five verbs over bytes.

Snapshots, backups and volumes that move stand on these verbs and on nothing else. A driver knows one kind of place;
retries, caches, limits and prefixes are wrappers with the same verbs (`orlop.objects.wrappers`). What one may not
take on trust, that a conditional write is conditional, is tried out before anything depends on it
(`orlop.objects.probe`). `MemoryStore` is the definition that can be read and run.

Keys are relative paths of plain parts, such as ``data/0a/0abc``: `check_key` says which are refused. What is a folder
of some key is no key itself: beside ``data/0a`` there is never an object ``data``, for not every place can keep both.
"""

import hashlib
import re
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from orlop.errors import Conflict, Invalid, NotFound

ABSENT: Final = ""
"""For ``only_if``: nothing may be there yet."""

_PIECE: Final = 1 << 20
_PART = re.compile(r"[A-Za-z0-9_=@+~-][A-Za-z0-9._=@+~-]*")


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What is known of an object without reading it.

    ``version`` changes with every write of other content, means nothing else and is never empty. ``modified`` is the
    time of the write by the store's own clock (seconds since 1970); in the answer to a write it may be the writer's.
    """

    key: str
    size: int
    version: str
    modified: float


class ObjectStore(Protocol):
    """A place for objects. Errors are `orlop.errors`; `Unavailable` where the place does not answer.

    Who changes an object depending on what it says asks `stat` first and reads then: a write in between makes the
    version old, and the conditional write fails.
    """

    def stat(self, key: str) -> ObjectInfo:
        """What is known of the object; raises `NotFound`."""

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from ``start`` up to ``end`` (exclusive; None is all), in pieces; raises `NotFound`.

        All of it is of one version. Bytes beyond the end of the object are not there: the answer is shorter.
        Errors come with the first piece or later, not from the call.
        """

    def write(self, key: str, data: Iterable[bytes], *, only_if: str | None = None) -> ObjectInfo:
        """Store the object durably; readers see the whole object or the one before it, never a part.

        An error raised by ``data`` passes through, and nothing is written. ``only_if`` is `ABSENT` or the version that
        `stat` or a write returned; raises `Conflict` if that does not hold. A conditional write that raises
        `Unavailable` may have happened: whoever cares reads what is there. It may be held in memory: for small objects.
        """

    def delete(self, key: str) -> None:
        """Remove the object; nothing there is fine."""

    def walk(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object whose key begins with ``prefix``, in the order of the keys.

        What is written or deleted meanwhile may be seen or not; everything else is. Some places know a version here
        that `write` does not take: conditions are made of what `stat` says.
        """


def is_key(key: str) -> bool:
    """Whether an object may be called that."""
    return len(key) <= 900 and all(_PART.fullmatch(part) for part in key.split("/"))


def check_key(key: str) -> str:
    """The key itself; raises `Invalid` for one that could mean something else in some store."""
    if not is_key(key):
        raise Invalid(f"{key!r} is no name for an object")
    return key


class MemoryStore:
    """Objects in this process's memory: what the verbs mean, to be read and to be compared with."""

    def __init__(self) -> None:
        self._objects: dict[str, tuple[bytes, ObjectInfo]] = {}
        self._lock = threading.Lock()

    def stat(self, key: str) -> ObjectInfo:
        """See `ObjectStore`."""
        return self._find(key)[1]

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See `ObjectStore`."""
        content = self._find(key)[0][start:end]
        for begin in range(0, len(content), _PIECE):
            yield content[begin : begin + _PIECE]

    def write(self, key: str, data: Iterable[bytes], *, only_if: str | None = None) -> ObjectInfo:
        """See `ObjectStore`."""
        content = b"".join(data)
        info = ObjectInfo(check_key(key), len(content), hashlib.sha256(content).hexdigest(), time.time())
        with self._lock:
            before = self._objects.get(key)
            if only_if is not None and only_if != (before[1].version if before else ABSENT):
                raise Conflict(f"object {key!r} has changed")
            self._objects[key] = (content, info)
        return info

    def delete(self, key: str) -> None:
        """See `ObjectStore`."""
        with self._lock:
            self._objects.pop(check_key(key), None)

    def walk(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `ObjectStore`."""
        with self._lock:
            found = [info for key, (_, info) in self._objects.items() if key.startswith(prefix)]
        yield from sorted(found, key=lambda info: info.key)

    def _find(self, key: str) -> tuple[bytes, ObjectInfo]:
        try:
            return self._objects[check_key(key)]
        except KeyError:
            raise NotFound(f"no object {key!r}") from None
