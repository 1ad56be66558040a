"""A transaction on the state file: every way to change something in it is here."""

import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from orlop.errors import Conflict
from orlop.state.records import Holder, Row

_KEPT_EVENTS: Final = 10_000
_TRIM_EVERY: Final = 256


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
        self._unless_taken("INSERT INTO volumes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", *_values(row), name=row.name)
        return row

    def adopt(self, row: Row) -> None:
        """Remember a volume whose storage is there already; one with its key or name stays as it is."""
        self._db.execute("INSERT OR IGNORE INTO volumes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", _values(row))

    def replace(self, row: Row) -> None:
        """Remember ``row`` in place of the one with its key; raises `Conflict` if a live volume has its name."""
        columns = "name = ?, driver = ?, options = ?, labels = ?, created = ?, phase = ?, removed = ?, in_place = ?"
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

    def _unless_taken(self, statement: str, *values: object, name: str) -> None:
        try:
            self._db.execute(statement, values)
        except sqlite3.IntegrityError as error:
            raise Conflict(f"a volume {name!r} exists already") from error


def _values(row: Row) -> tuple[object, ...]:
    options, labels = json.dumps(dict(row.options)), json.dumps(dict(row.labels))
    return row.key, row.name, row.driver, options, labels, row.created, row.phase, row.removed, row.in_place


def _free_key(db: sqlite3.Connection, name: str, taken: Callable[[str], bool]) -> str:
    """``name``, or ``name~2`` ... while a removed volume's storage has that; ``~`` is not legal in a name."""
    key, number = name, 1
    while taken(key) or db.execute("SELECT 1 FROM volumes WHERE key = ?", (key,)).fetchone():
        number += 1
        key = f"{name}~{number}"
    return key
