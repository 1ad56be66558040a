"""``orlop volume``: Docker's verbs about volumes, and ours."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import ClassVar

import click

from orlop import engine
from orlop.cli import output
from orlop.cli.archive import export, import_
from orlop.cli.engines import Engines, asking
from orlop.cli.filters import Filters, labelled
from orlop.cli.labels import known_labels
from orlop.cli.lazily import LazyGroup
from orlop.cli.migrate import migrate
from orlop.cli.options import configured, each, mapping
from orlop.cli.publish import publish
from orlop.cli.removal import prune, restore, rm, unmount
from orlop.errors import Invalid, OrlopError
from orlop.state import Row
from orlop.volumes.service import DRIVER_OPTION, VolumeService

_PATIENCE = 15.0
"""Seconds in which a backend may tell what other hosts have done."""
_HEADINGS = {
    "Name": "VOLUME NAME",
    "Driver": "DRIVER",
    "Scope": "SCOPE",
    "Mountpoint": "MOUNTPOINT",
    "Labels": "LABELS",
    "CreatedAt": "CREATED AT",
    "RemovedAt": "REMOVED AT",
    "Key": "KEY",
}
_FILTERS = ("name", "driver", "label", "dangling")


class _Commands(LazyGroup):
    # What reads and writes repositories is large.
    modules: ClassVar[Mapping[str, str]] = {"clone": "rewind", "rollback": "rewind"}


@click.group(cls=_Commands)
def volume() -> None:
    """Manage volumes."""


for _command in (rm, restore, prune, unmount, export, import_, migrate, publish):
    volume.add_command(_command)


@volume.command()
@click.argument("name", required=False)
@click.option("-d", "--driver", help="Kind of storage; 'orlop driver ls' shows which there are.  [default: local]")
@click.option("-o", "--opt", "options", multiple=True, metavar="KEY=VALUE", help="Option of the driver; repeatable.")
@click.option("--label", "labels", multiple=True, metavar="KEY[=VALUE]", help="Set a label; repeatable.")
@configured
def create(
    config: engine.Config, name: str | None, driver: str | None, options: Sequence[str], labels: Sequence[str]
) -> None:
    """Create a volume and print its name, which is made up if you give none.

    One that exists already with the same options is fine.
    """
    chosen = mapping(options)
    if driver and chosen.setdefault(DRIVER_OPTION, driver) != driver:
        raise Invalid(f"--driver {driver!r} and option 'driver' {chosen[DRIVER_OPTION]!r} exclude each other")
    click.echo(engine.volumes(config).create(name or os.urandom(32).hex(), chosen, mapping(labels)).name)


@volume.command()
@click.option("-q", "--quiet", is_flag=True, help="Names only.")
@click.option("-f", "--filter", "filters", multiple=True, metavar="KEY=VALUE",
              help="Only those with name=, driver=, label= or dangling=true (no container uses them).")  # fmt: skip
@click.option("--format", "format_", help="table, json, or a Go template such as '{{.Name}}'.")
@click.option("--trash", is_flag=True, help="Removed volumes that can still be restored, instead.")
@configured
@asking
def ls(
    config: engine.Config,
    engines: Engines,
    quiet: bool,
    filters: Sequence[str],
    format_: str | None,
    trash: bool,
) -> None:
    """List volumes."""
    service, wanted = engine.volumes(config), Filters(filters, _FILTERS)
    if not service.everywhere.fresh(_PATIENCE):
        click.echo(f"orlop: volumes of other hosts may be missing: no answer about them in {_PATIENCE:.0f} s", err=True)
    rows = [row for row in service.state.unfinished() if row.phase == "trashed"] if trash else service.all()
    rows = [row for row in rows if _matches(row, wanted, service, engines)]
    # Docker's own labels cost a question to the engine: only who looks at labels pays.
    labels = known_labels(engines) if format_ and ("Labels" in format_ or format_ == "json") else _own_labels
    if quiet:
        format_ = "{{.Name}}"
    records = [_record(service, row, labels(row)) for row in sorted(rows, key=lambda row: row.name)]
    output.show(records, _HEADINGS, ["Driver", "Name", *(["RemovedAt"] if trash else [])], format_)


@volume.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("-f", "--format", "format_", help="json, or a Go template such as '{{.Mountpoint}}'.")
@configured
@asking
def inspect(config: engine.Config, engines: Engines, names: Sequence[str], format_: str | None) -> None:
    """Show all that is known about volumes, as JSON."""
    service, labels = engine.volumes(config), known_labels(engines)
    found = []

    def look(name: str) -> None:
        found.append(_document(service, engines, labels, service.get(name)))

    failed = each(names, look)
    output.show_documents(found, format_)
    sys.exit(failed)


@volume.command()
@click.argument("name")
@click.option("-o", "--opt", "options", multiple=True, metavar="KEY=VALUE", help="New value, such as size=20g.")
@click.option("--label", "labels", multiple=True, metavar="KEY[=VALUE]", help="Set a label; repeatable.")
@configured
def update(config: engine.Config, name: str, options: Sequence[str], labels: Sequence[str]) -> None:
    """Change a volume, in use or not: make it larger, set labels."""
    if not options and not labels:
        raise Invalid(f"nothing to change about volume {name!r}: say -o size=... or --label")
    click.echo(engine.volumes(config).update(name, mapping(options), mapping(labels)).name)


def _matches(row: Row, wanted: Filters, service: VolumeService, engines: Engines) -> bool:
    return (
        wanted.any_of("name", lambda text: text in row.name)
        and wanted.any_of("driver", lambda text: text == row.driver)
        and wanted.all_of("label", lambda text: labelled(engines.labels(row), text))
        and wanted.flag("dangling", lambda: not engines.users(row.name) and not _in_use(service, row))
    )


def _in_use(service: VolumeService, row: Row) -> bool:
    # What is not attached needs no look at every process.
    return service.state.is_attached(row.key) and bool(service.users(row))


def _own_labels(row: Row) -> dict[str, str]:
    return dict(row.labels)


def _record(service: VolumeService, row: Row, labels: dict[str, str]) -> output.Record:
    removed = datetime.fromtimestamp(row.removed, UTC).isoformat(timespec="seconds") if row.removed else ""
    return {
        "Name": row.name,
        "Driver": row.driver,
        "Scope": service.driver(row.driver).scope,
        "Mountpoint": str(service.path(row)),
        "Labels": output.pairs(labels),
        "CreatedAt": row.created,
        "RemovedAt": removed.replace("+00:00", "Z"),
        "Key": row.key,
    }


def _document(
    service: VolumeService, engines: Engines, labels: Callable[[Row], dict[str, str]], row: Row
) -> output.Record:
    attached = service.state.is_attached(row.key)
    status = {"Attached": attached, "InUse": attached and bool(service.users(row)), **service.status(row)}
    try:
        status["Size"] = service.usage(row)
    except (OrlopError, OSError) as error:
        status["Error"] = str(error)
    last, trouble = service.state.snapshot(row.key)
    status |= {"LastSnapshot": dict(last)} if last else {}
    status |= {"LastSnapshotError": trouble} if trouble else {}
    return {
        "CreatedAt": row.created,
        "Driver": row.driver,
        "Labels": labels(row),
        "Mountpoint": str(service.path(row)),
        "Name": row.name,
        "Options": dict(row.options),
        "Scope": service.driver(row.driver).scope,
        "Status": status,
        "Holders": [
            {"Client": hold.holder.client, "ID": hold.holder.id, "Count": hold.count, "Pid": hold.holder.pid}
            for hold in service.state.holds(row.key)
        ],
        "Containers": _containers(engines, row.name),
    }


def _containers(engines: Engines, name: str) -> list[dict[str, str]] | None:
    """None where an engine does not answer."""
    try:
        return [{"Name": user.name, "ID": user.id, "State": user.state} for user in engines.users(name)]
    except OrlopError as error:
        click.echo(f"orlop: containers may be missing: {error}", err=True)
        return None
