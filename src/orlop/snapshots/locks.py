"""Who works in a repository: restic's lock files, kept fresh, and honoured in both directions.

There is no lock that stops everybody: savers, readers and orlop's prune hold shared locks side by side. What stock
restic does exclusively (prune, check, rebuilding the index) waits for them, and they for it. A lock of a process that
died on this host, or one that nobody refreshed for half an hour, holds nobody up.
"""

import contextlib
import os
import pwd
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, Self

import msgspec

from orlop.errors import Busy, NotFound, OrlopError
from orlop.objects.store import ObjectInfo
from orlop.snapshots import documents, times
from orlop.snapshots.documents import LockFile

REFRESH: Final = 300.0
STALE: Final = 1800.0
"""Seconds after which restic, and we, take a lock for abandoned."""


class Objects(Protocol):
    """What locks need of a repository."""

    def listed(self, folder: str) -> list[ObjectInfo]:
        """The objects in ``locks/``."""

    def load(self, folder: str, name: str) -> bytes:
        """One of them, opened; raises `NotFound`."""

    def put(self, folder: str, plain: bytes) -> tuple[str, ObjectInfo]:
        """Store one under the name that its content gives it."""

    def remove(self, folder: str, name: str) -> None:
        """Take one away."""


@dataclass(frozen=True, slots=True)
class Held:
    """A lock that is in the store."""

    name: str
    modified: float
    file: LockFile

    @property
    def session(self) -> str:
        """The same for all names that a lock has in turn: refreshing a lock gives it another."""
        return self.file.orlop_session or f"{self.file.hostname}/{self.file.pid}/{self.file.username}"


class Lock:
    """A shared lock, refreshed by a thread of its own while it is held."""

    def __init__(self, objects: Objects, *, prune: bool = False) -> None:
        self._objects, self._prune = objects, prune
        self.session = os.urandom(16).hex()
        self._name, self._refreshed, self._since = "", 0.0, 0.0
        self._lost: str | None = None
        self._ended = threading.Event()
        self._guard = threading.Lock()
        self._refresher = threading.Thread(target=self._keep_fresh, name="lock", daemon=True)

    def __enter__(self) -> Self:
        """Raises `Busy` while somebody holds an exclusive lock, or for two prunes at once."""
        self._write()
        try:
            # Whoever came at the same moment sees ours, or we see theirs.
            self._refuse()
        except BaseException:
            self._objects.remove("locks", self._name)
            raise
        self._refresher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._refresher.join()
        with contextlib.suppress(OrlopError):  # a lock that stays is found to be stale
            self._objects.remove("locks", self._name)

    def now(self) -> float:
        """The time by the store's clock, in seconds since 1970; hosts disagree about it."""
        return self._refreshed + _uptime() - self._since

    def check(self) -> None:
        """Called before a commit. Raises `Busy` if the lock was away meanwhile: what it protected may be gone."""
        with self._guard:
            # It is asked for by its name: there are stores whose listings lag.
            if self._lost is None and not self._is_there():
                self._lost = "somebody took it for abandoned"
            self._check_age()
            if self._lost is not None:
                raise Busy(f"the lock {self._name!r} was lost: {self._lost}; nothing was committed, start again")

    def refresh(self) -> None:
        """Write it again under another name; then the old one may go."""
        with self._guard:
            self._check_age()
            if self._lost is None:
                before = self._name
                self._write()
                self._objects.remove("locks", before)

    def others(self) -> list[Held]:
        """The other locks that count; the abandoned ones are taken away."""
        found, known = {}, {self._name}
        # Twice, because a lock that is refreshed during a listing may be missing from it under both its names.
        for held in [*_new(self._objects, known), *_new(self._objects, known)]:
            if _is_stale(held, self.now()):
                self._objects.remove("locks", held.name)
            elif held.session != self.session:
                found[held.session] = held
        return list(found.values())

    def _write(self) -> None:
        now = times.written(time.time_ns())
        file = LockFile(
            now, False, host_name(), user_name(), os.getpid(), os.getuid(), os.getgid(), self.session,
            _process_namespace(), self._prune,
        )  # fmt: skip
        self._name, info = self._objects.put("locks", msgspec.json.encode(file))
        self._refreshed, self._since = info.modified, _uptime()

    def _is_there(self) -> bool:
        try:
            self._objects.load("locks", self._name)
        except NotFound:
            return False
        return True

    def _check_age(self) -> None:
        if _uptime() - self._since > STALE:
            self._lost = self._lost or "it was not refreshed for half an hour"

    def _keep_fresh(self) -> None:
        while not self._ended.wait(REFRESH):
            with contextlib.suppress(OrlopError):  # tried again in time, or found lost by `check`
                self.refresh()

    def _refuse(self) -> None:
        for other in (held.file for held in self.others()):
            if other.exclusive or (self._prune and other.orlop_prune):
                how = "exclusively" if other.exclusive else "for pruning"
                raise Busy(
                    f"the repository is locked {how} by process {other.pid} of {other.username!r} on "
                    f"{other.hostname!r} since {other.time}; try again when it has ended"
                )


def host_name() -> str:
    """The name of this host: `socket` asks the kernel for the same, and takes milliseconds to be imported."""
    return os.uname().nodename


def user_name() -> str:
    """The name of the user this process runs as, or the number of one without a name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _new(objects: Objects, known: set[str]) -> Iterator[Held]:
    """The locks whose names are not ``known`` yet; what a name stands for never changes."""
    for info in objects.listed("locks"):
        name = _name(info)
        # One that has gone was released, or refreshed under another name.
        with contextlib.suppress(NotFound):
            if name not in known:
                content = objects.load("locks", name)
                known.add(name)
                yield Held(name, info.modified, documents.decode(content, LockFile, info.key))


def _name(info: ObjectInfo) -> str:
    return info.key.rpartition("/")[2]


def _is_stale(held: Held, now: float) -> bool:
    """Whether the owner is gone: its process on this host, or its refreshes for half an hour of the store's clock."""
    if now - held.modified > STALE:
        return True
    here = held.file.hostname == host_name()
    return here and held.file.orlop_processes in ("", _process_namespace()) and not _alive(held.file.pid)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _process_namespace() -> str:
    """What makes a process id mean one process: this boot, and the namespace that numbers processes."""
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}/{Path('/proc/self/ns/pid').readlink()}"


def _uptime() -> float:
    # Unlike the monotonic clock it also runs while the machine sleeps; unlike the other it never jumps.
    return time.clock_gettime(time.CLOCK_BOOTTIME)
