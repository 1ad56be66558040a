"""Which snapshots of volumes stay, and why: decided before anything goes.

A snapshot that is not complete counts for nothing: it stays until there is a later one that is. Neither does one that
is later than now, which a wrong clock has made: it stays until its time has come.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from orlop.snapshots import retention
from orlop.snapshots.retention import Moment, Rule
from orlop.volumes.timeline import Snapshot


@dataclass(frozen=True, slots=True)
class Judged:
    """A snapshot, which goes unless there are ``reasons`` to keep it."""

    snapshot: Snapshot
    reasons: tuple[str, ...]


def judge(snapshots: Iterable[Snapshot], rules: Sequence[Rule], now: datetime) -> list[Judged]:
    """What becomes of the snapshots of one volume, the oldest first."""
    found = sorted(snapshots, key=lambda each: each.time)
    counting = [each for each in found if each.is_complete and each.time <= now]
    verdicts = retention.judge((Moment(each.id, each.time) for each in counting), rules)
    reasons = {verdict.moment.id: verdict.reasons for verdict in verdicts}
    last = counting[-1].time if counting else None
    return [Judged(each, reasons[each.id] if each.id in reasons else _aside(each, rules, last, now)) for each in found]


def _aside(snapshot: Snapshot, rules: Sequence[Rule], last: datetime | None, now: datetime) -> tuple[str, ...]:
    """Why one that counts for nothing stays, if it does."""
    if not rules:
        return ("no policy",)
    if snapshot.time > now:
        return ("later than now: the clock was wrong, or is",)
    return ("not complete, but none after it is",) if last is None or last < snapshot.time else ()
