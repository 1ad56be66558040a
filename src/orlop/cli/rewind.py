"""``orlop volume rollback`` and ``clone``: a volume as it was, and a second one like it."""

import sys
from collections.abc import Sequence

import click

from orlop.cli.bars import Bar, tell
from orlop.cli.ending import asked_to_end
from orlop.cli.engines import Engines, asking
from orlop.cli.hooks import ContainerHooks
from orlop.cli.labels import known_labels
from orlop.cli.options import mapping
from orlop.cli.repositories import with_timeline
from orlop.volumes.rewind import clone as cloned
from orlop.volumes.rewind import rollback as rolled_back
from orlop.volumes.timeline import Timeline
from orlop.volumes.wishes import wishes


@click.command()
@click.argument("name", metavar="VOLUME")
@click.argument("snapshot", default="latest")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@with_timeline
def rollback(timeline: Timeline, name: str, snapshot: str, dry_run: bool) -> None:
    """Let a volume that nobody uses be what it was in a snapshot; 'latest' if you name none.

    What it is now is kept in a snapshot of its own before. If it is interrupted, do it again.
    """
    found = timeline.find(snapshot if "@" in snapshot else f"{name}@{snapshot}")
    if dry_run:
        click.echo(
            f"would let volume {name} be what it was at {found.time.isoformat(timespec='seconds')} ({found.reference})"
        )
        return
    bar = Bar(f"rollback {name}")
    with asked_to_end():
        try:
            before, done = rolled_back(timeline, name, found, progress=bar)
        finally:
            bar.close()
    tell(done.problems)
    click.echo(f"{name} is what it was in {found.reference}; what it was until now is in {before.reference}")
    sys.exit(bool(done.problems))


@click.command()
@click.argument("name", metavar="VOLUME")
@click.argument("new", metavar="NEW")
@click.option("-d", "--driver", help="Kind of storage of the new one.  [default: as the volume has it]")
@click.option("-o", "--opt", "options", multiple=True, metavar="KEY=VALUE", help="Option of the driver; repeatable.")
@with_timeline
@asking
def clone(
    timeline: Timeline, engines: Engines, name: str, new: str, driver: str | None, options: Sequence[str]
) -> None:
    """Make a new volume that has the files a volume has now; it may be in use.

    On btrfs, and with size= on XFS or btrfs, that takes no time whatever the size; elsewhere the files are copied. What
    was done is told by 'orlop system events -f event=clone'.
    """
    wished = wishes(name, known_labels(engines)(timeline.service.get(name)))
    hooks = ContainerHooks(name, wished, engines)
    with asked_to_end():
        try:
            row = cloned(timeline, name, new, driver, mapping(options), hooks)
        finally:
            hooks.tell()
    click.echo(row.name)
