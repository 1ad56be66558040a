"""What the state file has rows of: volumes, who holds them, what happened."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Phase = Literal["creating", "ready", "trashed", "removing", "filling", "kept"]


@dataclass(frozen=True, slots=True)
class Row:
    """A volume as it is remembered. ``created`` is RFC 3339 in UTC, ``removed`` seconds since the epoch.

    ``in_place`` says that its files are used where they are, and nothing is mounted for that.
    """

    key: str
    name: str
    driver: str
    options: Mapping[str, str]
    labels: Mapping[str, str]
    created: str
    phase: Phase = "creating"
    removed: float | None = None
    in_place: bool = False


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
