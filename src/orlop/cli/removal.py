"""``orlop volume rm``, ``restore``, ``prune`` and ``unmount``.

What removes goes through the engines, so that their records stay right.
"""

import re
import sys
from collections.abc import Callable, Mapping, Sequence

import click

from orlop import engine
from orlop.cli import output
from orlop.cli.engines import Engines, asking
from orlop.cli.filters import Filters, labelled
from orlop.cli.options import configured, each
from orlop.errors import InUse, NotFound, OrlopError
from orlop.state import Row
from orlop.volumes.service import VolumeService

_ANONYMOUS = re.compile(r"[0-9a-f]{64}")
_WARNING = "WARNING! This will remove {what}.\nAre you sure you want to continue?"
_dry_run = click.option("--dry-run", is_flag=True, help="Only say what would be done.")


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("-f", "--force", is_flag=True, help="A volume that is not there is fine.")
@click.option("--purge", is_flag=True, help="Delete for good: it cannot be restored.")
@_dry_run
@configured
@asking
def rm(config: engine.Config, engines: Engines, names: Sequence[str], force: bool, purge: bool, dry_run: bool) -> None:
    """Remove volumes that no container uses; 'orlop volume restore' brings them back for a day."""
    service = engine.volumes(config)

    def remove(name: str) -> None:
        try:
            row = service.get(name)
        except NotFound:
            if force:
                return
            raise
        if dry_run:
            _refuse_use(service, engines, row)
        else:
            _remove(service, engines, row, purge=purge)
        click.echo(f"would remove {name}" if dry_run else name)

    sys.exit(each(names, remove))


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@configured
def unmount(config: engine.Config, names: Sequence[str]) -> None:
    """Take volumes down that no process uses, but that an engine took and never gave back.

    That is so when orlop was killed before it could answer. Until then another host has to wait for such a volume, if
    it is in a bucket. What an engine took less than two minutes ago counts as used: its container may be starting.
    """
    service = engine.volumes(config)

    def take_down(name: str) -> None:
        service.detach(name)
        click.echo(name)

    sys.exit(each(names, take_down))


@click.command()
@click.argument("name")
@click.option("--as", "new_name", metavar="NEW", help="Give it another name.")
@configured
def restore(config: engine.Config, name: str, new_name: str | None) -> None:
    """Bring back the volume of that name that was removed last."""
    click.echo(engine.volumes(config).restore(name, new_name).name)


@click.command()
@click.option("-a", "--all", "all_", is_flag=True, help="Named volumes as well, not only anonymous ones.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("--filter", "filters", multiple=True, metavar="label[!]=KEY[=VALUE]",
              help="Only those with, or without, the label; repeatable.")  # fmt: skip
@click.option("--trash", is_flag=True, help="Delete for good what was removed before, instead.")
@_dry_run
@configured
@asking
def prune(
    config: engine.Config,
    engines: Engines,
    all_: bool,
    force: bool,
    filters: Sequence[str],
    trash: bool,
    dry_run: bool,
) -> None:
    """Remove all volumes that no container uses, running or stopped."""
    service, wanted = engine.volumes(config), Filters(filters, ("label", "label!"))
    if not (force or dry_run):
        _ask(all_=all_, trash=trash)
    if trash:
        doomed = [
            row for row in service.state.unfinished() if row.phase == "trashed" and _labels_match(row.labels, wanted)
        ]
    else:
        doomed = [row for row in service.all() if _is_unused(service, engines, row, all_=all_, wanted=wanted)]
    if dry_run:
        _report(service, doomed, "Would delete Volumes:", lambda _: None)
    else:
        failed = _report(
            service, doomed, "Deleted Volumes:", service.purge if trash else lambda row: engines.remove(service, row)
        )
        if doomed and not trash:
            click.echo("orlop: 'orlop volume restore' brings them back; 'prune --trash' frees the space now", err=True)
        sys.exit(failed)


def _ask(*, all_: bool, trash: bool) -> None:
    what = "all local volumes not used by at least one container"
    if trash:
        what = "all removed volumes for good: they cannot be restored any more"
    elif not all_:
        what = "anonymous local volumes not used by at least one container"
    if not click.confirm(_WARNING.format(what=what), prompt_suffix=" "):
        click.echo("orlop: volume prune has been cancelled", err=True)
        sys.exit(1)


def _is_unused(service: VolumeService, engines: Engines, row: Row, *, all_: bool, wanted: Filters) -> bool:
    if not (all_ or _ANONYMOUS.fullmatch(row.name)) or engines.users(row.name):
        return False
    if (wanted.names("label") or wanted.names("label!")) and not _labels_match(engines.labels(row), wanted):
        return False
    return not (service.state.is_attached(row.key) and service.users(row))


def _labels_match(labels: Mapping[str, str], wanted: Filters) -> bool:
    return wanted.all_of("label", lambda text: labelled(labels, text)) and wanted.all_of(
        "label!", lambda text: not labelled(labels, text)
    )


def _report(service: VolumeService, doomed: Sequence[Row], title: str, delete: Callable[[Row], object]) -> int:
    """Delete, and say what went; returns the exit status."""
    total, gone, status = 0, [], 0
    for row in doomed:
        size = _size(service, row)
        try:
            delete(row)
        except InUse:
            continue  # a container took it meanwhile
        except OrlopError as error:
            click.echo(f"orlop: {error}", err=True)
            status = 1
            continue
        total += size
        gone.append(row.name)
    if gone:
        click.echo("\n".join((title, *gone, "")))
    click.echo(f"Total reclaimed space: {output.human(total)}")
    return status


def _size(service: VolumeService, row: Row) -> int:
    try:
        return service.usage(row) or 0
    except (OrlopError, OSError):
        return 0


def _remove(service: VolumeService, engines: Engines, row: Row, *, purge: bool) -> None:
    engines.remove(service, row)
    removed = service.state.by_key(row.key)
    if purge and removed is not None:
        service.purge(removed)


def _refuse_use(service: VolumeService, engines: Engines, row: Row) -> None:
    users = [*map(str, engines.users(row.name)), *service.users(row)]
    if users:
        raise InUse(f"volume {row.name!r} is in use by {', '.join(users)}")
