"""The tables of the state file, and how those of an older release become them."""

import sqlite3
from pathlib import Path

from orlop.errors import Unavailable

_VERSION = 4
_SNAPSHOTS = """
CREATE TABLE snapshots (
    key TEXT PRIMARY KEY, last TEXT NOT NULL DEFAULT '{}', error TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID
"""
_UPGRADES = {
    1: "ALTER TABLE attached ADD COLUMN trouble TEXT NOT NULL DEFAULT ''",
    2: _SNAPSHOTS,
    3: "ALTER TABLE volumes ADD COLUMN in_place INTEGER NOT NULL DEFAULT 0",
}
"""From a version to the next."""
_SCHEMA = (
    """
CREATE TABLE volumes (
    key TEXT PRIMARY KEY, name TEXT NOT NULL, driver TEXT NOT NULL, options TEXT NOT NULL, labels TEXT NOT NULL,
    created TEXT NOT NULL, phase TEXT NOT NULL, removed REAL, in_place INTEGER NOT NULL DEFAULT 0
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


def prepare(db: sqlite3.Connection, path: Path) -> None:
    """Make the tables of a new file, in a transaction; raises `Unavailable` for the file of a newer orlop."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > _VERSION:
        raise Unavailable(f"state file '{path}' was written by a newer orlop; use that one")
    steps = _SCHEMA.split(";") if version == 0 else [_UPGRADES[old] for old in range(version, _VERSION)]
    for statement in steps:
        db.execute(statement)
    if steps:
        db.execute(f"PRAGMA user_version = {_VERSION}")
