"""Which volumes this host is using, in memory: what the driver's verbs and the keeper tell each other.

A session is a file below a folder in memory (tmpfs): gone after a power cut, as the use itself is. Whoever changes one
holds its lock.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Phase = Literal["fetching", "using", "leaving", "lost"]


@dataclass(frozen=True, slots=True)
class Session:
    """This host's use of a volume.

    ``phase``: its files are fetched; it is used, and shipped every now and then; the last shipment is under way; or
    another host may have it by now, for ``reason``. ``token`` tells this use from all others, ``epoch`` is what the
    lease was given. ``renewed`` is when the lease was renewed last (seconds of CLOCK_BOOTTIME), ``shipped`` when the
    files were shipped last (seconds since 1970).
    """

    key: str
    name: str
    options: Mapping[str, str]
    token: str
    epoch: int
    phase: Phase = "fetching"
    renewed: float = 0.0
    shipped: float = 0.0
    reason: str = ""


class Sessions:
    """The sessions in ``folder``."""

    def __init__(self, folder: Path):
        """``folder`` is made when the first begins."""
        self.folder = folder

    def all(self) -> list[Session]:
        """Every session."""
        found = (self.get(path.stem) for path in sorted(self.folder.glob("*.json")))
        return [session for session in found if session is not None]

    def get(self, key: str) -> Session | None:
        """The session of the volume whose storage is ``key``; None if it is not used."""
        try:
            return Session(**json.loads(self._path(key).read_text()))
        except FileNotFoundError:
            return None

    def put(self, session: Session) -> Session:
        """Remember ``session``."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = self._path(session.key).with_suffix(".new")
        new.write_text(json.dumps(asdict(session)))
        new.rename(self._path(session.key))
        return session

    def end(self, key: str) -> None:
        """It is not used any more; not used is fine."""
        self._path(key).unlink(missing_ok=True)

    @contextmanager
    def alone(self, key: str) -> Iterator[None]:
        """Nobody else of this host changes the session of ``key``, or ships its files, meanwhile."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self._path(key).with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.json"
