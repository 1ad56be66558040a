"""What the labels of a volume wish about its snapshots.

orlop.snapshot.schedule   when to make one: hourly, daily, weekly, monthly, or 15m, 6h, 2d
orlop.snapshot.keep       which to keep: 7d,4w (see `orlop.snapshots.retention`); all, if nothing is said
orlop.snapshot.pause      true: pause the containers that use it, where nothing else holds files still
orlop.snapshot.pre        a command for the shell in a container that uses it, before the moment of the snapshot
orlop.snapshot.post       one after the moment
orlop.snapshot.hooks      ignore: make the snapshot even if ``pre`` fails
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from orlop.errors import Invalid
from orlop.snapshots import retention
from orlop.snapshots.retention import Rule

PREFIX: Final = "orlop.snapshot."
_KNOWN: Final = frozenset({"schedule", "keep", "pause", "pre", "post", "hooks"})
_BOOLEANS: Final = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class Wishes:
    """See above; what nobody wishes is empty."""

    schedule: str = ""
    keep: tuple[Rule, ...] = ()
    pause: bool = False
    pre: str = ""
    post: str = ""
    ignore: bool = False


def wishes(name: str, labels: Mapping[str, str]) -> Wishes:
    """What ``labels`` of the volume ``name`` say; raises `Invalid` for what makes no sense, naming both."""
    said = {label.removeprefix(PREFIX): text for label, text in labels.items() if label.startswith(PREFIX)}
    try:
        return _read(said)
    except Invalid as error:
        raise Invalid(f"volume {name!r}: {error}; see 'orlop volume update --label'") from None


def _read(said: Mapping[str, str]) -> Wishes:
    for word in said.keys() - _KNOWN:
        raise Invalid(f"there is no label '{PREFIX}{word}'")
    if said.get("hooks", "ignore") not in ("", "ignore"):
        raise Invalid(f"label '{PREFIX}hooks' is {said['hooks']!r}, and can only be 'ignore'")
    pause = said.get("pause", "false").lower()
    if pause not in _BOOLEANS:
        raise Invalid(f"label '{PREFIX}pause' is {said['pause']!r}, which is neither true nor false")
    schedule = said.get("schedule", "")
    return Wishes(
        retention.schedule(schedule) if schedule else "",
        retention.policy(said.get("keep", "")),
        _BOOLEANS[pause],
        said.get("pre", ""),
        said.get("post", ""),
        said.get("hooks") == "ignore",
    )
