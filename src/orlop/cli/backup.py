"""``orlop backup`` and ``orlop restore``: volumes in a repository elsewhere, and from there onto any host."""

import sys
from collections.abc import Sequence

import click

from orlop import engine
from orlop.cli.bars import Bar
from orlop.cli.ending import asked_to_end
from orlop.cli.engines import Engines, asking
from orlop.cli.filters import Filters, labelled
from orlop.cli.labels import known_labels
from orlop.cli.options import each, mapping
from orlop.cli.repositories import elsewhere
from orlop.cli.taking import FULL, take
from orlop.errors import Invalid
from orlop.volumes.repositories import Place
from orlop.volumes.rewind import revive
from orlop.volumes.service import DRIVER_OPTION
from orlop.volumes.timeline import LATEST, Snapshot, Timeline


@click.command()
@click.argument("names", nargs=-1, metavar="VOLUME...")
@elsewhere("--to")
@click.option("--init", is_flag=True, help="Make the repository if there is none.")
@click.option("--all", "all_", is_flag=True, help="Every volume, or every one that --filter lets pass.")
@click.option("--filter", "filters", multiple=True, metavar="label=KEY[=VALUE]",
              help="With --all: only those with the label, or driver=, name=; repeatable.")  # fmt: skip
@click.option("--pause", is_flag=True, help="Pause the containers that use it, where nothing else holds files still.")
@FULL
@click.option("--note", "notes", multiple=True, help="Words to find it by; repeatable.")
@asking
def backup(
    config: engine.Config,
    place: Place,
    engines: Engines,
    names: Sequence[str],
    init: bool,
    all_: bool,
    filters: Sequence[str],
    pause: bool,
    full: bool,
    notes: Sequence[str],
) -> None:
    """Make a snapshot of each volume in a repository elsewhere, and print its reference.

    Only what has changed since the last one there is read and sent. 'orlop restore' makes a volume of it on any host,
    and stock restic reads it.
    """
    if bool(names) == all_ or (filters and not all_):
        raise Invalid("say which volumes: names, or --all with --filter if not every one is meant")
    timeline = engine.timeline(config, place, make=init)
    chosen = _matching(timeline, filters, engines) if all_ else names
    _ = timeline.repository  # once, before anybody has to wait
    labels = known_labels(engines)
    with asked_to_end():
        sys.exit(each(chosen, lambda name: take(timeline, name, labels, engines, paused=pause, full=full, notes=notes)))


@click.command()
@click.argument("reference", metavar="VOLUME[@SNAPSHOT]")
@elsewhere("--from")
@click.option("--as", "new", metavar="NEW", help="Name of the new volume.  [default: as it was]")
@click.option("-d", "--driver", help="Kind of storage of the new volume.  [default: local]")
@click.option("-o", "--opt", "options", multiple=True, metavar="KEY=VALUE", help="Option of the driver; repeatable.")
@click.option("--label", "labels", multiple=True, metavar="KEY[=VALUE]", help="Set a label; repeatable.")
def restore(
    config: engine.Config,
    place: Place,
    reference: str,
    new: str | None,
    driver: str | None,
    options: Sequence[str],
    labels: Sequence[str],
) -> None:
    """Make a new volume of a backup, on the host it is of or on another; the latest one if you name none.

    There is no volume before all of its files are there.
    """
    timeline = engine.timeline(config, place)
    found, bar = _found(timeline, reference), Bar(f"restore {reference}")
    kind = {DRIVER_OPTION: driver} if driver else {}
    with asked_to_end():
        try:
            row = revive(
                timeline, found, new or found.volume, {**mapping(options), **kind}, mapping(labels), progress=bar
            )
        finally:
            bar.close()
    click.echo(f"volume {row.name} is what {found.reference} was on {found.host} at {found.time:%Y-%m-%dT%H:%M:%SZ}")


def _matching(timeline: Timeline, filters: Sequence[str], engines: Engines) -> list[str]:
    wanted = Filters(filters, ("label", "driver", "name"))
    return [
        row.name
        for row in timeline.service.all()
        if wanted.all_of("label", lambda text, row=row: labelled(engines.labels(row), text))  # type: ignore[misc]
        and wanted.any_of("driver", lambda text, row=row: text == row.driver)  # type: ignore[misc]
        and wanted.any_of("name", lambda text, row=row: text in row.name)  # type: ignore[misc]
    ]


def _found(timeline: Timeline, reference: str) -> Snapshot:
    """What is meant; the latest of volumes that several hosts call so would be a guess."""
    name, at, wish = reference.rpartition("@")
    if at and wish != LATEST:
        return timeline.find(reference)
    name = name if at else reference
    hosts = sorted({each.host for each in timeline.all(name)})
    if len(hosts) > 1:
        raise Invalid(
            f"hosts {', '.join(hosts)} have backups of a volume {name!r}; name one as {name}@ID, "
            "'orlop snapshot ls --repository ...' lists them"
        )
    return timeline.find(f"{name}@{LATEST}")
