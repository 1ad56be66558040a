"""Which volumes want a snapshot now, what of theirs may go afterwards, and what is remembered of failures.

Only times decide, and what is later than now counts for nothing: a clock that jumps neither stops nor multiplies
snapshots.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from orlop.snapshots import retention
from orlop.snapshots.prune import Pruned, prune
from orlop.snapshots.retention import Rule
from orlop.state import Row
from orlop.volumes.host import noted
from orlop.volumes.keeping import Judged, judge
from orlop.volumes.timeline import Timeline

_PRUNED = "snapshots pruned"
_OFTEN = "daily"
"""How often data that nobody needs is looked for: all trees are read for it."""


def now(timeline: Timeline) -> datetime:
    """What this host's clock says."""
    return datetime.fromtimestamp(timeline.service.host.now(), UTC)


def is_due(timeline: Timeline, row: Row, wish: str) -> bool:
    """Whether the schedule ``wish`` wants a snapshot of ``row`` now."""
    last, _ = timeline.service.state.snapshot(row.key)
    # What is remembered saves the opening of the repository, every minute; only the snapshots can say that one is due.
    times = [datetime.fromisoformat(last["time"])] if last.get("repository", "") == timeline.address and last else []
    if not retention.is_due(wish, times, now(timeline)):
        return False
    return retention.is_due(wish, [each.time for each in timeline.own(row.name)], now(timeline))


def forget(timeline: Timeline, name: str, rules: Sequence[Rule]) -> list[Judged]:
    """Forget the snapshots of the volume ``name`` that ``rules`` do not keep; returns them."""
    doomed = [each for each in judge(timeline.own(name), rules, now(timeline)) if not each.reasons]
    for each in doomed:
        timeline.forget(each.snapshot)
    return doomed


def clean(timeline: Timeline) -> Pruned | None:
    """Delete the data that no snapshot needs, if that has not been done today."""
    state, setting = timeline.service.state, f"{_PRUNED} {timeline.address}"
    last = state.setting(setting)
    if last and not retention.is_due(_OFTEN, [datetime.fromisoformat(last)], now(timeline)):
        return None
    with state.change() as change:
        change.set(setting, now(timeline).isoformat())
    return prune(timeline.repository)


def failed(timeline: Timeline, row: Row, why: str) -> None:
    """Remember why there is no new snapshot of ``row``; it is an event when it is news."""
    service = timeline.service
    _, known = service.state.snapshot(row.key)
    if why != known:
        with noted(service.state, service.host, "snapshot-failed", row, {"error": why}) as change:
            change.snapshot_error(row.key, why)
