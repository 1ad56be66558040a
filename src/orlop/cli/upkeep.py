"""``orlop snapshot prune`` and ``check``: what may go, what has gone bad."""

import sys
from collections.abc import Callable, Iterator, Sequence

import click

from orlop.cli import output
from orlop.cli.bars import Bar
from orlop.cli.ending import asked_to_end
from orlop.cli.engines import Engines, asking
from orlop.cli.labels import known_labels
from orlop.cli.options import Duration
from orlop.cli.repositories import with_timeline
from orlop.errors import NotFound, OrlopError
from orlop.objects.places import locate
from orlop.snapshots import retention
from orlop.snapshots.check import check as checked
from orlop.snapshots.prune import GRACE
from orlop.snapshots.prune import prune as pruned
from orlop.snapshots.retention import Rule
from orlop.state import Row
from orlop.volumes.keeping import Judged, judge
from orlop.volumes.schedule import now
from orlop.volumes.timeline import Snapshot, Timeline
from orlop.volumes.wishes import wishes

_HEADINGS = {"Reference": "SNAPSHOT", "CreatedAt": "CREATED AT", "Verdict": "VERDICT", "Reasons": "REASONS"}


@click.command()
@click.argument("names", nargs=-1, metavar="[VOLUME...]")
@click.option("--keep", metavar="POLICY",
              help="Which to keep, such as 3,24h,7d,4w,12m,1y; overrules the label orlop.snapshot.keep.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show what is kept and why, and what would go; do nothing.")
@click.option("--grace", type=Duration(), default=GRACE,
              help="How long data that no snapshot needs is there before it is deleted.  [default: 1h]")  # fmt: skip
@click.option("--format", "format_", help="table, json, or a Go template such as '{{.Reference}}'.")
@with_timeline
@asking
def prune(
    timeline: Timeline,
    engines: Engines,
    names: Sequence[str],
    keep: str | None,
    dry_run: bool,
    grace: float,
    format_: str | None,
) -> None:
    """Forget this host's snapshots that no policy keeps, and delete the data that no snapshot needs.

    A volume for which nothing is said keeps all of its snapshots. Data goes in two steps: the next prune, after the
    grace, deletes what this one finds. Others may make and restore snapshots meanwhile.
    """
    labels, failed = known_labels(engines), False
    told = None if keep is None else retention.policy(keep)
    found: list[Judged] = []
    for name, snapshots in _by_volume(timeline, names):
        try:
            found += judge(snapshots, _rules(timeline, name, labels) if told is None else told, now(timeline))
        except OrlopError as error:
            click.echo(f"orlop: {error}", err=True)
            failed = True
    doomed = [each for each in found if not each.reasons]
    shown = found if dry_run else doomed
    if shown:
        output.show([_record(each) for each in shown], _HEADINGS, list(_HEADINGS), format_)
    if not dry_run:
        with asked_to_end():
            for each in doomed:
                timeline.forget(each.snapshot)
            done = pruned(timeline.repository, grace=grace)
        click.echo(f"Total reclaimed space: {output.human(done.freed)}", err=bool(format_))
    sys.exit(failed)


@click.command()
@click.option("--read-data", is_flag=True, help="Read every byte, not only what says where they are.")
@click.option("--copy", metavar="ADDRESS",
              help="Another store with the same repository, to repair from; a cloud's settings come from the "
              "environment.")  # fmt: skip
@with_timeline
def check(timeline: Timeline, read_data: bool, copy: str | None) -> None:
    """Look whether the repository is what it promises to be; exit status 1 if something in it is bad."""
    bar, other = Bar("check"), locate(copy, {}) if copy else None
    with asked_to_end():
        try:
            faults = checked(timeline.repository, read_data=read_data, copy=other, progress=bar)
        finally:
            bar.close()
    for fault in faults:
        click.echo(f"{fault.key}: {fault.reason}" + (" (repaired)" if fault.repaired else ""), err=not fault.repaired)
    bad = sum(not fault.repaired for fault in faults)
    click.echo(f"{bad} bad object(s) found" if bad else "all is well")
    sys.exit(bool(bad))


def _by_volume(timeline: Timeline, names: Sequence[str]) -> Iterator[tuple[str, list[Snapshot]]]:
    there: dict[str, list[Snapshot]] = {}
    for each in timeline.own():
        there.setdefault(each.volume, []).append(each)
    for name in names:
        if name not in there:
            raise NotFound(f"there is no snapshot of a volume {name!r} that this host has made")
    yield from ((name, there[name]) for name in sorted(names or there))


def _rules(timeline: Timeline, name: str, labels: Callable[[Row], dict[str, str]]) -> Sequence[Rule]:
    """The policy of a volume; none keeps everything, and so does a volume that has gone."""
    try:
        row = timeline.service.get(name)
    except NotFound:
        return ()
    return wishes(name, labels(row)).keep


def _record(each: Judged) -> output.Record:
    return {
        "Reference": each.snapshot.reference,
        "CreatedAt": each.snapshot.time.isoformat(timespec="seconds"),
        "Verdict": "keep" if each.reasons else "forget",
        "Reasons": ", ".join(each.reasons),
    }
