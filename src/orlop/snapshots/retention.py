"""When to make a snapshot, and which ones to keep and why: decided from times alone.

A schedule is a period such as ``hourly``, ``daily`` or ``15m``: one snapshot is wanted in each. A policy is a list such
as ``3,24h,7d,4w``: the last 3, and the newest of each of the last 24 hours, 7 days and 4 weeks that have any, as restic
counts them. Days and what is longer begin at midnight UTC, weeks on Monday.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from orlop.errors import Invalid

_SECONDS = {"m": 60, "h": 3600, "d": 86_400}
_NAMED = {"hourly": "1h", "daily": "1d", "weekly": "weekly", "monthly": "monthly"}
_UNITS = {"": "last", "h": "hourly", "d": "daily", "w": "weekly", "m": "monthly", "y": "yearly"}


@dataclass(frozen=True, slots=True)
class Moment:
    """A snapshot as far as it matters here; ``time`` has a time zone."""

    id: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to become of a snapshot: it goes unless there are ``reasons`` to keep it."""

    moment: Moment
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """Keep ``count`` snapshots, one for each ``unit`` (a key of `_UNITS`)."""

    count: int
    unit: str


def schedule(text: str) -> str:
    """``text`` if it is a schedule; raises `Invalid`."""
    if text not in _NAMED and not re.fullmatch(r"[1-9]\d{0,5}[mhd]", text):
        raise Invalid(f"schedule {text!r} is none of {', '.join(_NAMED)}, or a number with m, h or d, such as 15m")
    return text


def is_due(wish: str, times: Iterable[datetime], now: datetime) -> bool:
    """Whether the schedule ``wish`` wants a snapshot ``now``, beside those of ``times``.

    What is later than now was made by a clock that was wrong, and does not count.
    """
    return not any(time <= now and _period(time, wish) == _period(now, wish) for time in times)


def policy(text: str) -> tuple[Rule, ...]:
    """The rules of a policy; raises `Invalid`. None at all keeps everything."""
    return tuple(_rule(word.strip()) for word in text.split(",") if word.strip())


def judge(moments: Iterable[Moment], rules: Sequence[Rule]) -> list[Verdict]:
    """What becomes of each snapshot, the newest first, with every reason for those that are kept."""
    ordered = sorted(moments, key=lambda moment: moment.time, reverse=True)
    if not rules:
        return [Verdict(moment, ("no policy",)) for moment in ordered]
    reasons: dict[str, list[str]] = {moment.id: [] for moment in ordered}
    for rule in rules:
        for number, moment in enumerate(_chosen(ordered, rule), 1):
            reasons[moment.id].append(f"{_UNITS[rule.unit]} {number} of {rule.count}")
    return [Verdict(moment, tuple(reasons[moment.id])) for moment in ordered]


def _rule(word: str) -> Rule:
    found = re.fullmatch(r"(\d{1,6})([hdwmy]?)", word)
    if not found or not int(found[1]):
        raise Invalid(f"{word!r} is no rule to keep snapshots by: say a number, alone or with h, d, w, m or y")
    return Rule(int(found[1]), found[2])


def _chosen(ordered: Sequence[Moment], rule: Rule) -> list[Moment]:
    if not rule.unit:
        return list(ordered[: rule.count])
    newest: dict[object, Moment] = {}
    for moment in ordered:
        newest.setdefault(_bucket(moment.time, rule.unit), moment)
    return list(newest.values())[: rule.count]


def _bucket(time: datetime, unit: str) -> object:
    time = time.astimezone(UTC)
    parts = {"h": (*time.timetuple()[:4],), "d": time.date(), "m": (time.year, time.month), "y": time.year}
    return time.isocalendar()[:2] if unit == "w" else parts[unit]


def _period(time: datetime, wish: str) -> object:
    wish = _NAMED.get(wish, wish)
    if wish in ("weekly", "monthly"):
        return _bucket(time, wish[0])
    length = int(wish[:-1]) * _SECONDS[wish[-1]]
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=length)
