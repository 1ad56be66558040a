"""Which volumes this host is using, in memory: what the driver's verbs and the keeper tell each other.

A session is a file below a folder in memory (tmpfs): gone after a power cut, as the use itself is. A managed plugin has
none that outlives it, and a folder on disk for each boot instead. Whoever changes a session holds its lock.
"""

import json
import math
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from orlop.kernel.locks import Locks
from orlop.volumes.driver import Volume

Phase = Literal["fetching", "using", "leaving", "broken", "lost"]


@dataclass(frozen=True, slots=True)
class Session:
    """This host's use of a volume.

    ``phase``: its files are fetched; it is used, and shipped every now and then; the last shipment is under way; its
    files must not be read until it is attached anew; or another host may have it by now. ``reason`` says why one of
    the latter two is so, or why it could not be shipped last. ``token`` tells this use from all others; ``epoch`` is
    what the lease was given, 0 before. ``lost_at`` is when the lease ends unless it is renewed (seconds of
    CLOCK_BOOTTIME), ``shipped`` when the files were shipped last (seconds since 1970). ``fetched`` bytes are here, of
    a copy that is lazy.
    """

    key: str
    name: str
    options: Mapping[str, str]
    token: str
    epoch: int = 0
    phase: Phase = "fetching"
    lost_at: float = 0.0
    shipped: float = 0.0
    fetched: int = 0

    @property
    def volume(self) -> Volume:
        """The volume, as whoever began to use it saw it."""
        return Volume(self.name, "bucket", self.options)

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where processes meet about the missing files of a volume: who holds them back, and who waits for them."""

    hold: Path
    wait: Path
    numbers: Path


def of_this_boot(folder: Path, boot: str) -> Path:
    """Where below ``folder``, which outlives a power cut, sessions are that do not; those of earlier boots are gone."""
    for old in folder.glob("*"):
        if old.name != boot:
            shutil.rmtree(old, ignore_errors=True)
    return folder / boot


class Sessions:
    """The sessions in ``folder``."""

    def __init__(self, folder: Path):
        """``folder`` is made when the first begins."""
        self.folder, self._locks = folder, Locks(folder / "locks")

    def all(self) -> list[Session]:
        """Every session."""
        found = (self.get(path.name.removesuffix("~.json")) for path in sorted(self.folder.glob("*~.json")))
        return [session for session in found if session is not None]

    def get(self, key: str) -> Session | None:
        """The session of the volume whose storage is ``key``; None if it is not used."""
        try:
            return Session(**json.loads(self._path(key, "json").read_text()))
        except FileNotFoundError:
            return None

    def begin(self, session: Session) -> Session:
        """Remember a new session."""
        with self._locked(session.key, "lock"):
            return self._put(session)

    def change(self, session: Session, **fields: object) -> Session | None:
        """Change ``fields`` of a session, as it is now; None if it has ended. One that is lost stays as it is."""
        with self._locked(session.key, "lock"):
            now = self.get(session.key)
            if now is None or now.token != session.token:
                return None
            if now.phase == "lost":
                return now
            return self._put(replace(now, **fields))  # type: ignore[arg-type]

    def end(self, session: Session) -> None:
        """It is over; over already is fine."""
        with self._locked(session.key, "lock"):
            now = self.get(session.key)
            if now is not None and now.token == session.token:
                self._path(session.key, "json").unlink()

    def shipping(self, key: str) -> AbstractContextManager[None]:
        """Nobody else of this host ships the files of ``key`` meanwhile, or takes them away."""
        return self._locked(key, "shipping")

    def _put(self, session: Session) -> Session:
        new = self._path(session.key, "new")
        new.write_text(json.dumps(asdict(session)))
        new.rename(self._path(session.key, "json"))
        return session

    def keeping(self) -> AbstractContextManager[None]:
        """What the one keeper of this host does; raises `Busy` if there is another."""
        return self._locked("", "keeper", patience=0)

    @property
    def is_kept(self) -> bool:
        """Whether there is a keeper."""
        return self._locks.is_held("~keeper")

    def hydrating(self, key: str) -> AbstractContextManager[None]:
        """What the one process does that fetches the missing files of ``key``; raises `Busy` if there is another."""
        return self._locked(key, "hydrating", patience=0)

    def is_hydrated(self, key: str) -> bool:
        """Whether there is such a process."""
        return self._locks.is_held(f"{key}~hydrating")

    def _locked(self, key: str, what: str, patience: float = math.inf) -> AbstractContextManager[None]:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._locks.hold(f"{key}~{what}", patience)

    def place(self, key: str) -> Place:
        """Where processes meet about files that are missing."""
        return Place(*(self._path(key, kind) for kind in ("hold", "wait", "numbers")))

    def _path(self, key: str, kind: str) -> Path:
        # A volume may be called a.lock.
        return self.folder / f"{key}~.{kind}"
