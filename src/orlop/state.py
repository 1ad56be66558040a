"""What this host remembers: one SQLite file, changed only in a transaction.

Six tables: the volumes (with the phase each is in), which of them are attached, who holds them, their last snapshots,
settings, and what happened lately. Phases are the recorded intent: ``creating`` and ``removing`` mean that a driver may
have done half its work.

    creating ──► ready ──► trashed ──► removing ──► (no row)
                   ▲──────────┘ restore

A volume that moves to another driver is ``filling`` there; the old one is ``kept`` until that is committed. A clone is
``filling`` until it is ready: a crash undoes it.

What must survive a power cut is synced before the call returns. Holds and events are not: after a power cut nobody
holds anything, and a killed process loses nothing, since the write-ahead log is in the kernel's hands by then.
"""

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from orlop.errors import Busy, Conflict, Corrupt, NoSpace, OrlopError, Unavailable

Phase = Literal["creating", "ready", "trashed", "removing", "filling", "kept"]

_VERSION = 3
_SNAPSHOTS = """
CREATE TABLE snapshots (
    key TEXT PRIMARY KEY, last TEXT NOT NULL DEFAULT '{}', error TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID
"""
_UPGRADES = {1: "ALTER TABLE attached ADD COLUMN trouble TEXT NOT NULL DEFAULT ''", 2: _SNAPSHOTS}
"""From a version to the next."""
_KEPT_EVENTS = 10_000
_TRIM_EVERY = 256
_SCHEMA = (
    """
CREATE TABLE volumes (
    key TEXT PRIMARY KEY, name TEXT NOT NULL, driver TEXT NOT NULL, options TEXT NOT NULL, labels TEXT NOT NULL,
    created TEXT NOT NULL, phase TEXT NOT NULL, removed REAL
) WITHOUT ROWID;
CREATE UNIQUE INDEX one_live_volume_a_name ON volumes (name) WHERE phase IN ('creating', 'ready');
CREATE INDEX unfinished ON volumes (phase) WHERE phase != 'ready';
CREATE TABLE attached (
    key TEXT PRIMARY KEY, boot TEXT NOT NULL, trouble TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE TABLE holds (
    key TEXT NOT NULL, client TEXT NOT NULL, id TEXT NOT NULL, count INTEGER NOT NULL,
    pid INTEGER NOT NULL, started INTEGER NOT NULL, counted INTEGER NOT NULL, boot TEXT NOT NULL, since REAL NOT NULL,
    PRIMARY KEY (key, client, id)
) WITHOUT ROWID;
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, action TEXT NOT NULL, volume TEXT NOT NULL,
    details TEXT NOT NULL
);
"""
    + _SNAPSHOTS
)


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
    ``counted`` is False for an engine that counts for itself and gives back once, however often it asked.
    """

    client: str
    id: str
    pid: int = 0
    started: int = 0
    counted: bool = True


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
    """The state file, open; safe for threads, and for several processes at once.

    Looking is done here, changing through a `Change`, which `change` opens.
    """

    def __init__(self, path: Path):
        """Open ``path``, or make it. Raises `Corrupt` if it is damaged and `Unavailable` if it cannot be used."""
        self.path = path
        self._durable: bool | None = None
        # Readers never wait for a writer's sync: they have a connection of their own.
        self._reader, self._reading = self._open(), threading.Lock()
        self._writer, self._writing = self._open(), threading.Lock()
        try:
            with self.change() as change:
                change.prepare(path)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._reader.close()
        self._writer.close()

    @contextmanager
    def change(self, *, durable: bool = True) -> Iterator["Change"]:
        """All that is changed inside, or nothing. Never call a driver or the kernel inside."""
        with self._writing, self._translated():
            if durable != self._durable:
                self._writer.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
                self._durable = durable
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield Change(self._writer)
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    def live(self, name: str) -> Row | None:
        """The volume that has this name now, being created or ready."""
        rows = self._rows("name = ? AND phase IN ('creating', 'ready')", name)
        return rows[0] if rows else None

    def ready(self) -> list[Row]:
        """Every volume that can be used, by name."""
        return self._rows("phase = 'ready' ORDER BY name")

    def names(self) -> list[tuple[str, str, str]]:
        """Name, key and time of creation of every volume that can be used, by name: what a list needs, and no more."""
        return [
            (*row,) for row in self._all("SELECT name, key, created FROM volumes WHERE phase = 'ready' ORDER BY name")
        ]

    def unfinished(self) -> list[Row]:
        """Every volume that is not ready: half made, in the trash, half removed."""
        return self._rows("phase != 'ready'")

    def removing(self, name: str) -> list[Row]:
        """The volumes ``name`` whose removal has begun; however full the trash is, this asks for these alone."""
        return self._rows("phase != 'ready' AND phase = 'removing' AND name = ?", name)

    def by_key(self, key: str) -> Row | None:
        """The volume whose storage is ``key``, whatever its phase."""
        rows = self._rows("key = ?", key)
        return rows[0] if rows else None

    def attached(self) -> dict[str, str]:
        """The keys that are attached, with the boot in which that happened."""
        return dict(self._all("SELECT key, boot FROM attached"))

    def is_attached(self, key: str) -> bool:
        """Whether a detach of ``key`` is owed."""
        return bool(self._all("SELECT 1 FROM attached WHERE key = ?", key))

    def trouble(self, key: str) -> str:
        """What is wrong with the attached volume ``key``; empty if nothing is known."""
        rows = self._all("SELECT trouble FROM attached WHERE key = ?", key)
        return str(rows[0][0]) if rows else ""

    def snapshot(self, key: str) -> tuple[Mapping[str, str], str]:
        """What is known of the last snapshot of volume ``key``, and why one that was to follow failed; or nothing."""
        rows = self._all("SELECT last, error FROM snapshots WHERE key = ?", key)
        return (_loads(rows[0][0]), str(rows[0][1])) if rows else ({}, "")

    def holds(self, key: str | None = None) -> list[Hold]:
        """The holds of one volume, or of all."""
        query = "SELECT key, client, id, pid, started, counted, count, boot, since FROM holds"
        rows = self._all(query) if key is None else self._all(query + " WHERE key = ?", key)
        return [Hold(row[0], Holder(row[1], row[2], row[3], row[4], bool(row[5])), *row[6:]) for row in rows]

    def events(self, after: int = 0) -> list[Event]:
        """What happened after event number ``after``, in order."""
        rows = self._all("SELECT seq, time, action, volume, details FROM events WHERE seq > ? ORDER BY seq", after)
        return [Event(seq, time, action, volume, json.loads(details)) for seq, time, action, volume, details in rows]

    def setting(self, name: str) -> str | None:
        """What was remembered under ``name``."""
        rows = self._all("SELECT value FROM settings WHERE name = ?", name)
        return str(rows[0][0]) if rows else None

    def check(self) -> None:
        """Read the whole file; raises `Corrupt` if SQLite finds it damaged."""
        problems = [text for (text,) in self._all("PRAGMA integrity_check") if text != "ok"]
        if problems:
            raise Corrupt(_damaged(self.path, problems[0]))

    def _rows(self, where: str, *values: str) -> list[Row]:
        columns = "key, name, driver, options, labels, created, phase, removed"
        found = self._all(f"SELECT {columns} FROM volumes WHERE {where}", *values)  # noqa: S608
        return [
            Row(key, name, driver, _loads(options), _loads(labels), *rest)
            for key, name, driver, options, labels, *rest in found
        ]

    def _all(self, query: str, *values: str | int) -> Sequence[tuple]:  # type: ignore[type-arg]
        with self._reading, self._translated():
            return self._reader.execute(query, values).fetchall()

    def _open(self) -> sqlite3.Connection:
        with self._translated():
            with suppress(OSError):  # SQLite says better what is wrong
                self.path.touch(mode=0o600)
            db = sqlite3.connect(
                self.path, timeout=20, isolation_level=None, check_same_thread=False, factory=_Connection
            )
            try:
                db.execute("PRAGMA journal_mode = WAL")
            except BaseException:
                db.close()
                raise
            return db

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise _kind_of(error, self.path) from error


class _Connection(sqlite3.Connection):
    """Closed when nobody has it any more; since Python 3.13 one that was left to that warns."""

    def __del__(self) -> None:
        self.close()


class Change:
    """A transaction on the state file: what to change in it."""

    def __init__(self, db: sqlite3.Connection):
        """``db`` is inside a transaction."""
        self._db = db

    def insert(self, row: Row, taken: Callable[[str], bool]) -> Row:
        """Remember a new volume, with a key that no other has and that is not ``taken`` otherwise.

        Raises `Conflict` if a live volume has the name.
        """
        row = replace(row, key=_free_key(self._db, row.name, taken))
        self._unless_taken("INSERT INTO volumes VALUES (?, ?, ?, ?, ?, ?, ?, ?)", *_values(row), name=row.name)
        return row

    def adopt(self, row: Row) -> None:
        """Remember a volume whose storage is there already; one with its key or name stays as it is."""
        self._db.execute("INSERT OR IGNORE INTO volumes VALUES (?, ?, ?, ?, ?, ?, ?, ?)", _values(row))

    def replace(self, row: Row) -> None:
        """Remember ``row`` in place of the one with its key; raises `Conflict` if a live volume has its name."""
        columns = "name = ?, driver = ?, options = ?, labels = ?, created = ?, phase = ?, removed = ?"
        key, *values = _values(row)
        self._unless_taken(f"UPDATE volumes SET {columns} WHERE key = ?", *values, key, name=row.name)  # noqa: S608

    def delete(self, key: str) -> None:
        """Forget volume ``key``; none is fine."""
        self._db.execute("DELETE FROM volumes WHERE key = ?", (key,))
        self._db.execute("DELETE FROM snapshots WHERE key = ?", (key,))
        self.detach(key)

    def attach(self, key: str, boot: str) -> None:
        """Remember, before it happens, that the driver attaches ``key``: a detach is owed."""
        self._db.execute("INSERT OR REPLACE INTO attached (key, boot) VALUES (?, ?)", (key, boot))

    def trouble(self, key: str, text: str) -> None:
        """Remember what is wrong with the attached volume ``key``; empty if nothing is."""
        self._db.execute("UPDATE attached SET trouble = ? WHERE key = ?", (text, key))

    def snapshot(self, key: str, last: Mapping[str, str]) -> None:
        """Remember the ``last`` snapshot of volume ``key``; why an earlier one failed is news no more."""
        self._db.execute("INSERT OR REPLACE INTO snapshots (key, last) VALUES (?, ?)", (key, json.dumps(last)))

    def snapshot_error(self, key: str, error: str) -> None:
        """Remember why there is no newer snapshot of volume ``key``."""
        self._db.execute(
            "INSERT INTO snapshots (key, error) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET error = excluded.error",
            (key, error),
        )

    def detach(self, key: str) -> None:
        """Remember, after it happened, that nothing of ``key`` is attached any more, and that nobody holds it."""
        self._db.execute("DELETE FROM attached WHERE key = ?", (key,))
        self._db.execute("DELETE FROM holds WHERE key = ?", (key,))

    def hold(self, key: str, holder: Holder, boot: str, now: float) -> None:
        """One more hold of ``key`` by ``holder``.

        A hold that an earlier process of the same engine took for the same id is replaced, not added to: a killed
        engine never gives back, and asks again when it starts the container again.
        """
        self._db.execute(
            """INSERT INTO holds VALUES (?, ?, ?, 1, ?, ?, ?, ?, ?) ON CONFLICT (key, client, id) DO UPDATE SET
               count = CASE WHEN (pid, started, boot) = (excluded.pid, excluded.started, excluded.boot)
                            THEN count + counted ELSE 1 END,
               pid = excluded.pid, started = excluded.started, boot = excluded.boot, since = excluded.since""",
            (key, holder.client, holder.id, holder.pid, holder.started, holder.counted, boot, now),
        )

    def release(self, key: str, holder: Holder) -> None:
        """One hold of ``key`` less; none is fine."""
        where = (key, holder.client, holder.id)
        self._db.execute("DELETE FROM holds WHERE count <= 1 AND key = ? AND client = ? AND id = ?", where)
        self._db.execute("UPDATE holds SET count = count - 1 WHERE key = ? AND client = ? AND id = ?", where)

    def set(self, name: str, value: str) -> None:
        """Remember ``value`` under ``name``."""
        self._db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    def note(self, time: float, action: str, volume: str, details: Mapping[str, str]) -> None:
        """Something happened; the last 10,000 such notes are kept, and a few more."""
        cursor = self._db.execute(
            "INSERT INTO events (time, action, volume, details) VALUES (?, ?, ?, ?)",
            (time, action, volume, json.dumps(details)),
        )
        last = cursor.lastrowid or 0
        if last % _TRIM_EVERY == 0:
            self._db.execute("DELETE FROM events WHERE seq <= ?", (last - _KEPT_EVENTS,))

    def prepare(self, path: Path) -> None:
        """Make the tables of a new file; raises `Unavailable` for the file of a newer orlop."""
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            raise Unavailable(f"state file '{path}' was written by a newer orlop; use that one")
        steps = _SCHEMA.split(";") if version == 0 else [_UPGRADES[old] for old in range(version, _VERSION)]
        for statement in steps:
            self._db.execute(statement)
        if steps:
            self._db.execute(f"PRAGMA user_version = {_VERSION}")

    def _unless_taken(self, statement: str, *values: object, name: str) -> None:
        try:
            self._db.execute(statement, values)
        except sqlite3.IntegrityError as error:
            raise Conflict(f"a volume {name!r} exists already") from error


def _values(row: Row) -> tuple[object, ...]:
    options, labels = json.dumps(dict(row.options)), json.dumps(dict(row.labels))
    return row.key, row.name, row.driver, options, labels, row.created, row.phase, row.removed


def _loads(text: str) -> dict[str, str]:
    return json.loads(text) if text != "{}" else {}


def _free_key(db: sqlite3.Connection, name: str, taken: Callable[[str], bool]) -> str:
    """``name``, or ``name~2`` ... while a removed volume's storage has that; ``~`` is not legal in a name."""
    key, number = name, 1
    while taken(key) or db.execute("SELECT 1 FROM volumes WHERE key = ?", (key,)).fetchone():
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
