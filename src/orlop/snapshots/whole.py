"""Which snapshots are whole, kept on this host: whoever saves what is as it was need not ask for each blob again.

When a snapshot is committed, the index files that were known list every blob that it refers to. They never change (each
is named for its content), so while all of them are there, those blobs are too. Whoever takes blobs away replaces what
lists them: then one of the names is missing, and nothing is known of any snapshot. More names ask for more than is
needed; so one list of names is right for all snapshots.
"""

from collections.abc import Set
from typing import Final

import msgspec

from orlop.errors import Corrupt
from orlop.snapshots.hostfile import HostFile

_FORMAT: Final = 1
_MOST: Final = 1000
"""Snapshots that are remembered, the newest: of a volume, usually only the last one is asked for."""


class _Record(msgspec.Struct):
    """Snapshots that are whole while all index files of these names are there, the newest last."""

    format: int
    names: set[str]
    snapshots: list[str]


class Whole:
    """The snapshots in ``file`` (None: nothing is kept); it may be deleted at any time."""

    def __init__(self, file: HostFile | None) -> None:
        self._file = file

    def has(self, snapshot: str, listed: Set[str]) -> bool:
        """Whether every blob that the snapshot refers to is in one of the index files that are ``listed`` now."""
        record = self._load()
        return snapshot in record.snapshots and record.names <= listed

    def add(self, snapshot: str, names: Set[str], others: Set[str]) -> None:
        """One whose blobs are all in the index files ``names``; ``others`` are listed now as well."""
        if self._file is None:
            return
        record = self._load()
        # What others on this host have saved meanwhile stays whole; what a prune has replaced comes never back.
        if not record.names <= names | others:
            record = _nothing()
        record.names |= names
        record.snapshots = [*record.snapshots, snapshot][-_MOST:]
        self._file.replace([msgspec.msgpack.encode(record)])

    def _load(self) -> _Record:
        try:
            parts = [] if self._file is None else list(self._file.parts())
            record = msgspec.msgpack.decode(b"".join(parts), type=_Record)
        except (Corrupt, msgspec.MsgspecError):
            return _nothing()
        return record if record.format == _FORMAT else _nothing()


def _nothing() -> _Record:
    return _Record(_FORMAT, set(), [])
