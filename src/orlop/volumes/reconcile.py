"""Makes true again what a crash, a killed engine or a reboot left half true.

`decide` is a pure function from what was found to a list of actions, which can be shown (``orlop system check``);
`carry_out` does one of them. The kernel's view is the truth, recorded holds are a hint.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from orlop.errors import OrlopError
from orlop.kernel import mountinfo
from orlop.state import Row
from orlop.volumes import definitions
from orlop.volumes.service import VolumeService

_log = logging.getLogger(__name__)

Verb = Literal["finish", "settle", "heal", "unmount", "purge", "forget"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found on this host at ``now``."""

    boot: str
    now: float
    trash_grace: float
    unfinished: Sequence[Row]
    attached: Mapping[str, str]
    """The keys that are attached, with the boot in which that happened."""
    mounted: frozenset[str]
    """The keys at whose place something is mounted; also what healing left beside one, which is no volume's key."""
    used: frozenset[str]
    """The keys that a process sees, or that an engine took and nothing disproves it."""
    died: frozenset[str] = frozenset()
    """The keys whose FUSE program has ended under a mount."""


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do about the storage ``key``, and why."""

    verb: Verb
    key: str
    why: str


def look(service: VolumeService) -> Facts:
    """Gather the facts in one look at the host; changes nothing and asks no backend."""
    mounts, host = f"{service.attachments.mounts}/", service.host
    below = (entry.target[len(mounts) :] for entry in mountinfo.ours() if entry.target.startswith(mounts))
    # What is mounted inside a volume is its users' own.
    mounted = {key for key in below if "/" not in key}
    attached = service.state.attached()
    places = service.attachments.places(mounted | attached.keys())
    seen = {places[path] for path in service.attachments.mounter.holders(places)}
    used = seen | service.attachments.uses.standing()
    used |= {key for key in attached.keys() - mounted - used if _is_left(service, key)}
    unfinished = service.state.unfinished()
    facts = Facts(host.boot, host.now(), host.trash_grace, unfinished, attached, frozenset(mounted), frozenset(used))
    return replace(facts, died=service.attachments.died())


def _is_left(service: VolumeService, key: str) -> bool:
    """Whether somebody has a volume that is attached, and mounted no more where orlop does it."""
    row = service.state.by_key(key)
    return row is not None and not row.in_place and bool(service.attachments.seen(row))


def decide(facts: Facts) -> list[Action]:
    """What to do about ``facts``; nothing on a host where all is well."""
    return [*_unfinished(facts), *_attached(facts), *_orphans(facts)]


def carry_out(service: VolumeService, action: Action) -> None:
    """Do ``action``, if it is still needed; raises `OrlopError` where it cannot be done now."""
    row = owner(service, action.key)
    if row is None or row.key != action.key:
        with service.locked(row) if row else nullcontext():
            service.attachments.mounter.unmount(service.attachments.mounts / action.key)
    elif action.verb == "purge" and row.phase == "filling":
        with service.locked(row) as current:
            if current is not None and current.phase == "filling":
                service.life.drop(current)
    elif action.verb == "purge":
        # It may have been restored, and removed again, since that was decided.
        if row.phase == "removing" or service.host.now() - (row.removed or 0) >= service.host.trash_grace:
            service.purge(row)
    else:
        with service.locked(row) as current:
            if current is not None:
                _work_on(service, action.verb, current)


def owner(service: VolumeService, key: str) -> Row | None:
    """The volume whose place ``key`` is, or beside whose place it is, where mounts wait until all is well."""
    return service.state.by_key(key.removeprefix(".").removesuffix(".new") if key.startswith(".") else key)


def reconcile(service: VolumeService) -> list[Action]:
    """Look, decide, do: returns what was done. What cannot be done now is logged and stays for the next time."""
    done = []
    for action in decide(look(service)):
        try:
            carry_out(service, action)
        except OrlopError as error:
            _log.warning("%s of %s must wait: %s", action.verb, action.key, error)
        else:
            done.append(action)
    return done


def _unfinished(facts: Facts) -> Iterator[Action]:
    for row in facts.unfinished:
        if row.phase == "creating":
            yield Action("finish", row.key, "its creation was interrupted")
        elif row.phase == "removing":
            yield Action("purge", row.key, "its removal was interrupted")
        elif row.phase == "filling":
            yield Action("purge", row.key, "its migration, or the clone that it is, was interrupted")
        elif row.phase == "trashed" and facts.now - (row.removed or 0) >= facts.trash_grace:
            yield Action("purge", row.key, "it was removed and the time to restore it is over")


def _attached(facts: Facts) -> Iterator[Action]:
    for key, boot in facts.attached.items():
        if boot != facts.boot:
            yield Action("forget", key, "it was attached before the host was started anew")
        elif key not in facts.used:
            yield Action("settle", key, "it is attached, and nobody uses it")
        elif key in facts.died:
            yield Action("heal", key, "the program that served it has ended")


def _orphans(facts: Facts) -> Iterator[Action]:
    for key in sorted(facts.mounted - facts.attached.keys()):
        yield Action("unmount", key, "something is mounted that no volume has attached")


def _work_on(service: VolumeService, verb: Verb, row: Row) -> None:
    if verb == "finish" and row.phase == "creating":
        service.life.finish(row)
    elif verb in ("settle", "forget"):
        service.attachments.settle(row)
    elif verb == "heal" and service.state.is_attached(row.key):
        service.attachments.heal(row)
    elif verb == "unmount" and not service.state.is_attached(row.key):
        service.attachments.mounter.unmount(service.attachments.mounts / row.key)


def rebuild(service: VolumeService) -> Iterator[tuple[Path, Row | None]]:
    """Fill an empty state file from the definitions beside the data; yields each, None where one is unreadable."""
    for path, row in definitions.read(service.folder):
        if row is not None:
            with service.state.change() as change:
                change.adopt(row)
        yield path, row
