"""A volume as it was, and a second one like it."""

from collections.abc import Callable, Mapping
from pathlib import Path

from orlop.snapshots.report import Progress
from orlop.snapshots.restore import Restored
from orlop.state import Row
from orlop.volumes import cloning
from orlop.volumes.host import FROM, noted
from orlop.volumes.service import DRIVER_OPTION
from orlop.volumes.timeline import Hooks, NoHooks, Snapshot, Timeline
from orlop.volumes.uses import holder


def rollback(
    timeline: Timeline, name: str, snapshot: Snapshot, *, progress: Callable[[Progress], None] | None = None
) -> tuple[Snapshot, Restored]:
    """Let the volume ``name``, which nobody uses, be what it was; what it is now is in a snapshot before.

    Doing it again after a crash is right. Raises `InUse`.
    """
    service, me = timeline.service, holder("rollback")
    with service.lock(f"{name}@"), service.alone(name) as row:
        service.refuse_use(row)
        folder = service.attachments.mount(row, me)
        try:
            notes = [f"before rollback to {snapshot.short}"]
            now, _ = timeline.save(row, timeline.source(row, folder), notes, progress)
            done = timeline.restore(snapshot, folder, exact=True, progress=progress)
        finally:
            service.attachments.unmount(row, me)
        with noted(service.state, service.host, "rollback", row, {"id": snapshot.short, "before": now.short}):
            return now, done


def clone(
    timeline: Timeline, name: str, new: str, driver: str | None, options: Mapping[str, str], hooks: Hooks | None = None
) -> Row:
    """Make a volume ``new`` with the files that ``name`` has now; without ``driver`` of the same kind.

    At once where the two can share what they store, by a copy where nobody has to wait for that, else by way of a
    snapshot. Raises `Conflict` if there is a volume ``new``.
    """
    service = timeline.service
    row = service.get(name)
    kind = {DRIVER_OPTION: driver} if driver else {**row.options, DRIVER_OPTION: row.driver}
    wished = {option: value for option, value in (kind | dict(options)).items() if option != FROM}
    plan, hooks = service.plan(new, wished, row.labels), hooks or NoHooks()
    found = cloning.at_once(service, name, plan, hooks) or cloning.by_copy(timeline, name, plan, hooks)
    if found is not None:
        return found
    snapshot, _ = timeline.take(name, notes=[f"clone {new}"], hooks=hooks)
    found = service.create(new, {**wished, FROM: f"{name}@{snapshot.id}"}, row.labels, exist_ok=False)
    cloning.note(service, found, name, f"snapshot {snapshot.short}")
    return found


def revive(
    timeline: Timeline, snapshot: Snapshot, name: str, options: Mapping[str, str], labels: Mapping[str, str],
    *, progress: Callable[[Progress], None] | None = None,
) -> Row:  # fmt: skip
    """Make a volume ``name`` with the files of a snapshot that another host may have made, or nothing at all.

    The repository of ``timeline`` may be any. Raises `Conflict` if there is a volume ``name``.
    """
    service = timeline.service

    def fill(row: Row, folder: Path) -> None:
        timeline.fill(row, folder, progress)

    service.life.fill = fill
    return service.create(name, {**options, FROM: f"{snapshot.volume}@{snapshot.id}"}, labels, exist_ok=False)
