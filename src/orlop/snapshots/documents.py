"""The JSON documents of a repository, as typed values: config, key, lock, index, snapshot.

Names and meanings are restic's. What restic does not know is named ``orlop_...`` and may be lost when restic rewrites
a document; nothing depends on it but what is said there.
"""

from typing import TypeVar

import msgspec

from orlop.errors import Corrupt

T = TypeVar("T")


class Config(msgspec.Struct, omit_defaults=True):
    """What a repository is: written once, in clear text under its seal."""

    version: int
    id: str
    chunker_polynomial: str = ""


class KeyFile(msgspec.Struct):
    """The repository's keys, sealed with what scrypt makes of a password; the only document that is not sealed."""

    created: str
    username: str
    hostname: str
    kdf: str
    N: int
    r: int
    p: int
    salt: str
    data: str


class LockFile(msgspec.Struct, omit_defaults=True):
    """Who works in the repository. ``time`` is the last refresh by the owner's clock.

    ``orlop_session`` stays the same when a lock is refreshed under a new name; ``orlop_processes`` says among which
    processes ``pid`` is a number; ``orlop_prune`` that the owner rewrites indexes.
    """

    time: str
    exclusive: bool
    hostname: str
    username: str = ""
    pid: int = 0
    uid: int = 0
    gid: int = 0
    orlop_session: str = ""
    orlop_processes: str = ""
    orlop_prune: bool = False


class BlobEntry(msgspec.Struct, omit_defaults=True, gc=False):
    """Where in its pack a blob is. ``uncompressed_length`` is 0 for one that is stored as it is."""

    id: str
    type: str
    offset: int
    length: int
    uncompressed_length: int = 0


class PackEntry(msgspec.Struct, gc=False):
    """A pack and its blobs."""

    id: str
    blobs: list[BlobEntry] | None


class IndexFile(msgspec.Struct, omit_defaults=True):
    """Packs that may be read, and packs that are to be deleted (to restic these are not there).

    ``orlop_sessions`` are the sessions that were at work when the marks of this file could be seen by everybody who
    came later; None as long as nobody has looked.
    """

    packs: list[PackEntry] | None
    supersedes: list[str] | None = None
    packs_to_delete: list[PackEntry] | None = None
    orlop_sessions: list[str] | None = None


class SnapshotFile(msgspec.Struct, omit_defaults=True):
    """One moment of one folder: the commit of a save. ``tree`` is the id of its first tree."""

    time: str
    tree: str
    paths: list[str] | None = None
    hostname: str = ""
    username: str = ""
    uid: int = 0
    gid: int = 0
    parent: str | None = None
    tags: list[str] | None = None
    original: str | None = None
    program_version: str = ""
    excludes: list[str] | None = None

    @property
    def top(self) -> str:
        """Where in the snapshot the folder is that was saved; empty if it does not say."""
        return (self.paths or [""])[0].strip("/")


def decode(data: bytes, kind: type[T], name: str) -> T:
    """The document in ``data``; raises `Corrupt` naming ``name``."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt(f"{name!r} is no valid document: {error}") from None
