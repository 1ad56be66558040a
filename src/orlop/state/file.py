"""The state file, open: what is asked of it, and what its errors mean."""

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from orlop.errors import Busy, Corrupt, NoSpace, OrlopError, Unavailable
from orlop.state import schema
from orlop.state.change import Change
from orlop.state.records import Event, Hold, Holder, Row


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
            with self._transaction() as db:
                schema.prepare(db, path)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._reader.close()
        self._writer.close()

    @contextmanager
    def change(self, *, durable: bool = True) -> Iterator[Change]:
        """All that is changed inside, or nothing. Never call a driver or the kernel inside.

        What is not ``durable`` survives this process, but maybe not a power cut; the file does in any case.
        """
        with self._transaction(durable=durable) as db:
            yield Change(db)

    @contextmanager
    def _transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        with self._writing, self._translated():
            if durable != self._durable:
                # Not OFF: what is written back from the log must have been synced there before.
                self._writer.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._durable = durable
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
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

    def names(self) -> list[tuple[str, str, bool, str]]:
        """Name, key, whether used in place, and time of creation of every volume that can be used, by name.

        What a list needs, and no more.
        """
        columns = "name, key, in_place, created"
        return [(*row,) for row in self._all(f"SELECT {columns} FROM volumes WHERE phase = 'ready' ORDER BY name")]  # noqa: S608

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

    def in_place(self) -> frozenset[str]:
        """The keys that are attached, and whose files are used in place."""
        return frozenset(
            key for (key,) in self._all("SELECT key FROM attached JOIN volumes USING (key) WHERE in_place")
        )

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
        columns = "key, name, driver, options, labels, created, phase, removed, in_place"
        found = self._all(f"SELECT {columns} FROM volumes WHERE {where}", *values)  # noqa: S608
        return [
            Row(key, name, driver, _loads(options), _loads(labels), created, phase, removed, bool(in_place))
            for key, name, driver, options, labels, created, phase, removed, in_place in found
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


def _loads(text: str) -> dict[str, str]:
    return json.loads(text) if text != "{}" else {}


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
