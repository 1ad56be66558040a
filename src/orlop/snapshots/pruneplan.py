"""What a prune decides to do with each pack, and why: from what there is, and nothing else."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from orlop.snapshots.packs import MOST_BLOBS, SIZE

_HALF: Final = 0.5
_FEW: Final = 8
"""So many small packs of a kind are worth one larger."""
_SMALL: Final = SIZE // 4

Verb = Literal["mark", "repack", "recover", "wait", "sweep"]


@dataclass(frozen=True, slots=True)
class PackState:
    """A pack as prune sees it: ``size`` bytes, ``content`` of them blobs, ``used`` of these needed and read from here.

    ``state`` is ``live`` (in an index), ``loose`` (in none) or ``marked``; then ``sessions`` are those that may still
    count on it (None: not written down yet), and ``age`` are the seconds since.
    """

    name: str
    kind: str
    size: int
    content: int
    used: int
    state: Literal["live", "loose", "marked"]
    sessions: frozenset[str] | None = None
    age: float = 0.0
    blobs: int = 0


@dataclass(frozen=True, slots=True)
class Action:
    """What is to be done with a pack, and why."""

    verb: Verb
    pack: str
    size: int
    reason: str


def decide(packs: Iterable[PackState], sessions: frozenset[str], grace: float) -> list[Action]:
    """What to do, from what there is and the ``sessions`` that are at work; changes nothing."""
    packs = list(packs)
    return [*(action for pack in packs for action in _decide_one(pack, sessions, grace)), *_gather(packs)]


def _decide_one(pack: PackState, sessions: frozenset[str], grace: float) -> Iterator[Action]:
    if pack.state == "marked":
        yield _about_marked(pack, sessions, grace)
    elif pack.state == "loose":
        yield Action("mark", pack.name, pack.size, "no index lists it: a save did not end, or has not yet")
    elif not pack.used:
        yield Action("mark", pack.name, pack.size, "no snapshot needs anything in it")
    elif pack.used < _HALF * pack.content:
        yield Action("repack", pack.name, pack.size, f"{pack.used} bytes of {pack.content} are needed")


def _about_marked(pack: PackState, sessions: frozenset[str], grace: float) -> Action:
    if pack.used:
        return Action("recover", pack.name, pack.size, "a snapshot that was made meanwhile needs it")
    if pack.sessions is None:
        return Action("wait", pack.name, pack.size, "who may count on it is written down now")
    present = sorted(pack.sessions & sessions)
    if present:
        return Action("wait", pack.name, pack.size, f"{len(present)} sessions from before the mark are still at work")
    if pack.age < grace:
        return Action("wait", pack.name, pack.size, f"it was marked {pack.age:.0f} seconds ago")
    return Action("sweep", pack.name, pack.size, "no snapshot and no session needs it")


def _gather(packs: Sequence[PackState]) -> Iterator[Action]:
    """Small packs, as frequent saves make them, become larger ones when there are some."""
    for kind in ("data", "tree"):
        small = [p for p in packs if p.kind == kind and p.state == "live" and p.size < _SMALL]
        small = [pack for pack in small if pack.blobs < MOST_BLOBS // 2 and pack.used >= _HALF * pack.content]
        for pack in small if len(small) >= _FEW else ():
            yield Action("repack", pack.name, pack.size, f"one of {len(small)} small packs")


VERBS: Final[tuple[Verb, ...]] = ("mark", "repack", "recover", "wait", "sweep")
