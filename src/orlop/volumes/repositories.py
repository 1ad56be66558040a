"""Where the snapshots of this host's volumes go, and with which password.

What reads and writes repositories is large, and loaded when one is opened.
"""

import os
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from orlop.errors import Conflict, NotFound
from orlop.objects.places import locate
from orlop.objects.store import ObjectStore
from orlop.volumes import references
from orlop.volumes.definitions import sync

if TYPE_CHECKING:
    from orlop.snapshots.repository import Repository

FOLDER, KEY = "snapshots", "snapshots.key"
_RANDOM_BYTES = 32
_RANDOM = re.compile(rb"[0-9a-f]{64}")
_SECRET_SETTINGS = frozenset({"access_key", "secret_key", "session_token", "key", "service_account"})


@dataclass(frozen=True, slots=True)
class Place:
    """A repository: the address of its store, the reference of its password, and the store's settings.

    Settings that are secrets are references too (`orlop.volumes.references`). ``is_ours``: the host made the
    password for it.
    """

    address: str
    password: str
    settings: Mapping[str, str] = field(default_factory=dict)
    is_ours: bool = False


def own(root: Path) -> Place:
    """The repository that every host has, beside its volumes; its password is made with it."""
    return Place(str(root / FOLDER), f"file:{root / KEY}", is_ours=True)


def opened(place: Place, resolve: references.Resolve, cache: Path) -> "Repository":
    """The repository, of which this host keeps some in the folder ``cache``; raises `NotFound` where there is none."""
    from orlop.snapshots.repository import Repository

    try:
        return Repository.open(store(place, resolve), read_password(place, resolve), cache=cache)
    except NotFound:
        raise NotFound(f"there is no repository at {place.address!r}; 'orlop backup --init' makes one") from None


def made(place: Place, resolve: references.Resolve, cache: Path) -> "Repository":
    """The repository, which is made if there is none; again after a crash is fine."""
    password = read_password(place, resolve)
    # Unless somebody has put another one into its place.
    is_random = place.is_ours and _RANDOM.fullmatch(password) is not None
    return made_in(store(place, resolve), password, cache, is_random=is_random)


def made_in(there: ObjectStore, password: bytes, cache: Path | None, *, is_random: bool = False) -> "Repository":
    """The same in a store that is known already."""
    from orlop.snapshots.repository import Repository

    try:
        return Repository.open(there, password, cache=cache)
    except NotFound:
        with suppress(Conflict):  # somebody else was quicker
            return Repository.create(there, password, is_random=is_random, cache=cache)
        return Repository.open(there, password, cache=cache)


def prepared(root: Path) -> Place:
    """`own`, with its folder and its password, which is made before anything is locked with it."""
    folder, key = root / FOLDER, root / KEY
    folder.mkdir(mode=0o700, exist_ok=True)
    if not key.exists() and not (folder / "config").exists():
        new = key.with_suffix(f".{os.getpid()}.new")
        with open(new, "w", opener=lambda path, flags: os.open(path, flags | os.O_EXCL, 0o600)) as file:
            file.write(secrets.token_hex(_RANDOM_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(new, key)
        new.unlink()
        sync(root)
    return own(root)


def store(place: Place, resolve: references.Resolve) -> ObjectStore:
    """The store behind ``place``; nobody has asked it anything yet."""
    settings = {
        name: resolve(name, value).decode().strip() if name in _SECRET_SETTINGS else value
        for name, value in place.settings.items()
    }
    return locate(place.address, settings)


def read_password(place: Place, resolve: references.Resolve) -> bytes:
    """The password of ``place``."""
    # As restic reads its password file: a line end is no part of it.
    return resolve("password", place.password).rstrip(b"\r\n")
