"""What this host remembers: one SQLite file, changed only in a transaction.

Four tables: the volumes (with the phase each is in), which of them are attached, who holds them, and what happened
lately. Phases are the recorded intent: ``creating`` and ``removing`` mean that a driver may have done half its
work.

    creating ──► ready ──► trashed ──► removing ──► (no row)
                   ▲──────────┘ restore

What must survive a power cut is synced before the call returns. Holds and events are not: after a power cut nobody
holds anything, and a killed process loses nothing, since the write-ahead log is in the kernel's hands by then.
"""

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orlop.errors import Busy, Conflict, Corrupt, NoSpace, OrlopError, Unavailable

Phase = Literal["creating", "ready", "trashed", "removing"]

_VERSION = 1
_KEPT_EVENTS = 10_000
_SCHEMA = """
CREATE TABLE volumes (
    key TEXT PRIMARY KEY, name TEXT NOT NULL, driver TEXT NOT NULL, options TEXT NOT NULL, labels TEXT NOT NULL,
    created TEXT NOT NULL, phase TEXT NOT NULL, removed REAL
) WITHOUT ROWID;
CREATE UNIQUE INDEX one_live_volume_a_name ON volumes (name) WHERE phase IN ('creating', 'ready');
CREATE INDEX unfinished ON volumes (phase) WHERE phase != 'ready';
CREATE TABLE attached (key TEXT PRIMARY KEY, boot TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE holds (
    key TEXT NOT NULL, client TEXT NOT NULL, id TEXT NOT NULL, count INTEGER NOT NULL,
    pid INTEGER NOT NULL, started INTEGER NOT NULL, boot TEXT NOT NULL, since REAL NOT NULL,
    PRIMARY KEY (key, client, id)
) WITHOUT ROWID;
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, action TEXT NOT NULL, volume TEXT NOT NULL,
    details TEXT NOT NULL
);
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A volume as it is remembered. ``created`` is RFC 3339 in UTC, ``removed`` seconds since the epoch."""

    key: str
    name: str
    driver: str
    options: Mapping[str, str]
    labels: Mapping[str, str]
    created: str
    phase: Phase = "creating"
    removed: float | None = None


@dataclass(frozen=True, slots=True)
class Holder:
    """Who uses a volume: an engine (``client``) for one container or copy (``id``).

    ``pid`` and ``started`` tell which process of that engine asked; pid 0 is an engine that cannot be looked at.
    """

    client: str
    id: str
    pid: int = 0
    started: int = 0


@dataclass(frozen=True, slots=True)
class Hold:
    """A `Holder` of the volume ``key``, ``count`` times over, last asked for at ``since``."""

    key: str
    holder: Holder
    count: int
    boot: str
    since: float


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened: ``action`` (create, mount, ...) to ``volume``, number ``seq`` of this host."""

    seq: int
    time: float
    action: str
    volume: str
    details: Mapping[str, str]


class State:
    """The state file, open; safe for threads, and for several processes at once."""

    def __init__(self, path: Path):
        """Open ``path``, or make it. Raises `Corrupt` if it is damaged and `Unavailable` if it cannot be used."""
        self.path = path
        # Readers never wait for a writer's sync: they have a connection of their own.
        self._reader, self._reading = self._open(), threading.Lock()
        self._writer, self._writing = self._open(), threading.Lock()
        with self.transaction():
            self._prepare()

    def close(self) -> None:
        """Let go of the file."""
        self._reader.close()
        self._writer.close()

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """All that is written inside, or nothing. Never call a driver or the kernel inside."""
        with self._writing, self._translated():
            self._writer.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    # volumes

    def live(self, name: str) -> Row | None:
        """The volume that has this name now, being created or ready."""
        rows = self._rows("name = ? AND phase IN ('creating', 'ready')", name)
        return rows[0] if rows else None

    def ready(self) -> list[Row]:
        """Every volume that can be used, by name."""
        return sorted(self._rows("phase = 'ready'"), key=lambda row: row.name)

    def unfinished(self) -> list[Row]:
        """Every volume that is not ready: half made, in the trash, half removed."""
        return self._rows("phase != 'ready'")

    def by_key(self, key: str) -> Row | None:
        """The volume whose storage is ``key``, whatever its phase."""
        rows = self._rows("key = ?", key)
        return rows[0] if rows else None

    def insert(self, row: Row) -> Row:
        """Remember a new volume, with a key that nothing else has; raises `Conflict` if the name is taken."""
        with self.transaction() as db:
            key = _free_key(db, row.name)
            values = (
                key,
                row.name,
                row.driver,
                json.dumps(dict(row.options)),
                json.dumps(dict(row.labels)),
                row.created,
            )
            try:
                db.execute("INSERT INTO volumes VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*values, row.phase, row.removed))
            except sqlite3.IntegrityError as error:
                raise Conflict(f"a volume {row.name!r} exists already") from error
        return Row(key, row.name, row.driver, row.options, row.labels, row.created, row.phase, row.removed)

    def adopt(self, row: Row) -> None:
        """Remember a volume whose storage is there already; one with its key or name stays as it is."""
        with self.transaction() as db:
            values = (
                row.key,
                row.name,
                row.driver,
                json.dumps(dict(row.options)),
                json.dumps(dict(row.labels)),
            )
            db.execute(
                "INSERT OR IGNORE INTO volumes VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*values, row.created, row.phase, row.removed),
            )

    def move(self, key: str, phase: Phase, removed: float | None = None) -> None:
        """Volume ``key`` enters ``phase``; raises `Conflict` if a live volume has its name."""
        with self.transaction() as db:
            try:
                db.execute("UPDATE volumes SET phase = ?, removed = ? WHERE key = ?", (phase, removed, key))
            except sqlite3.IntegrityError as error:
                raise Conflict("a volume of that name exists") from error

    def change(self, row: Row) -> None:
        """Remember ``row``'s name, options and labels in place of the old ones."""
        with self.transaction() as db:
            try:
                db.execute(
                    "UPDATE volumes SET name = ?, options = ?, labels = ? WHERE key = ?",
                    (row.name, json.dumps(dict(row.options)), json.dumps(dict(row.labels)), row.key),
                )
            except sqlite3.IntegrityError as error:
                raise Conflict(f"a volume {row.name!r} exists already") from error

    def delete(self, key: str) -> None:
        """Forget volume ``key``; none is fine."""
        with self.transaction() as db:
            for table in ("volumes", "attached", "holds"):
                db.execute(f"DELETE FROM {table} WHERE key = ?", (key,))  # noqa: S608

    # attached, holds

    def attach(self, key: str, boot: str) -> None:
        """Remember, before it happens, that the driver attaches ``key``: a detach is owed."""
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO attached VALUES (?, ?)", (key, boot))

    def detach(self, key: str) -> None:
        """Remember, after it happened, that nothing of ``key`` is attached any more, and that nobody holds it."""
        with self.transaction(durable=False) as db:
            db.execute("DELETE FROM attached WHERE key = ?", (key,))
            db.execute("DELETE FROM holds WHERE key = ?", (key,))

    def attached(self) -> dict[str, str]:
        """The keys that are attached, with the boot in which that happened."""
        return dict(self._all("SELECT key, boot FROM attached"))

    def is_attached(self, key: str) -> bool:
        """Whether a detach of ``key`` is owed."""
        return bool(self._all("SELECT 1 FROM attached WHERE key = ?", key))

    def hold(self, key: str, holder: Holder, boot: str, now: float) -> None:
        """One more hold of ``key`` by ``holder``.

        A hold that an earlier process of the same engine took for the same id is replaced, not added to: a killed
        engine never gives back, and asks again when it starts the container again.
        """
        with self.transaction(durable=False) as db:
            db.execute(
                """INSERT INTO holds VALUES (?, ?, ?, 1, ?, ?, ?, ?) ON CONFLICT (key, client, id) DO UPDATE SET
                   count = CASE WHEN (pid, started, boot) = (excluded.pid, excluded.started, excluded.boot)
                                THEN count + 1 ELSE 1 END,
                   pid = excluded.pid, started = excluded.started, boot = excluded.boot, since = excluded.since""",
                (key, holder.client, holder.id, holder.pid, holder.started, boot, now),
            )

    def release(self, key: str, holder: Holder) -> None:
        """One hold of ``key`` less; none is fine."""
        with self.transaction(durable=False) as db:
            where = (key, holder.client, holder.id)
            db.execute("UPDATE holds SET count = count - 1 WHERE key = ? AND client = ? AND id = ?", where)
            db.execute("DELETE FROM holds WHERE count <= 0 AND key = ? AND client = ? AND id = ?", where)

    def drop(self, hold: Hold) -> None:
        """Forget ``hold`` unless it was taken again since."""
        with self.transaction(durable=False) as db:
            db.execute(
                "DELETE FROM holds WHERE key = ? AND client = ? AND id = ? AND since = ?",
                (hold.key, hold.holder.client, hold.holder.id, hold.since),
            )

    def holds(self, key: str | None = None) -> list[Hold]:
        """The holds of one volume, or of all."""
        query = "SELECT key, client, id, pid, started, count, boot, since FROM holds"
        rows = self._all(query) if key is None else self._all(query + " WHERE key = ?", key)
        return [Hold(row[0], Holder(*row[1:5]), *row[5:]) for row in rows]

    # events

    def note(self, time: float, action: str, volume: str, details: Mapping[str, str]) -> None:
        """Something happened; only the last 10,000 such notes are kept."""
        with self.transaction(durable=False) as db:
            cursor = db.execute(
                "INSERT INTO events (time, action, volume, details) VALUES (?, ?, ?, ?)",
                (time, action, volume, json.dumps(dict(details))),
            )
            db.execute("DELETE FROM events WHERE seq <= ?", ((cursor.lastrowid or 0) - _KEPT_EVENTS,))

    def events(self, after: int = 0) -> list[Event]:
        """What happened after event number ``after``, in order."""
        rows = self._all("SELECT seq, time, action, volume, details FROM events WHERE seq > ? ORDER BY seq", after)
        return [Event(seq, time, action, volume, json.loads(details)) for seq, time, action, volume, details in rows]

    # the file

    def check(self) -> None:
        """Read the whole file; raises `Corrupt` if SQLite finds it damaged."""
        problems = [text for (text,) in self._all("PRAGMA integrity_check") if text != "ok"]
        if problems:
            raise Corrupt(_damaged(self.path, problems[0]))

    def _rows(self, where: str, *values: str) -> list[Row]:
        columns = "key, name, driver, options, labels, created, phase, removed"
        found = self._all(f"SELECT {columns} FROM volumes WHERE {where}", *values)  # noqa: S608
        return [
            Row(key, name, driver, json.loads(options), json.loads(labels), *rest)
            for key, name, driver, options, labels, *rest in found
        ]

    def _all(self, query: str, *values: str | int) -> Sequence[tuple]:  # type: ignore[type-arg]
        with self._reading, self._translated():
            return self._reader.execute(query, values).fetchall()

    def _open(self) -> sqlite3.Connection:
        with self._translated():
            db = sqlite3.connect(self.path, timeout=20, isolation_level=None, check_same_thread=False)
            db.execute("PRAGMA journal_mode = WAL")
            return db

    def _prepare(self) -> None:
        (version,) = self._writer.execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            raise Unavailable(f"state file '{self.path}' was written by a newer orlop; use that one")
        if version == 0:
            for statement in _SCHEMA.split(";"):
                self._writer.execute(statement)
            self._writer.execute(f"PRAGMA user_version = {_VERSION}")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise _kind_of(error, self.path) from error


def _free_key(db: sqlite3.Connection, name: str) -> str:
    """``name``, or ``name~2`` ... while a removed volume's storage has that; ``~`` is not legal in a name."""
    key, number = name, 1
    while db.execute("SELECT 1 FROM volumes WHERE key = ?", (key,)).fetchone():
        number += 1
        key = f"{name}~{number}"
    return key


def _kind_of(error: sqlite3.DatabaseError, path: Path) -> OrlopError:
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Busy(f"state file '{path}' is locked by another process; try again")
    if name.startswith("SQLITE_FULL"):
        return NoSpace(f"no space left for state file '{path}'; free some and try again")
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_PERM")):
        return Unavailable(f"state file '{path}' cannot be used: {error}")
    return Corrupt(_damaged(path, str(error)))


def _damaged(path: Path, why: str) -> str:
    return f"state file '{path}' is damaged ({why}); 'orlop system check --repair' rebuilds it"
