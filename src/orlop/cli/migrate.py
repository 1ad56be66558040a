"""``orlop volume migrate``: the files of a volume to another driver."""

import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import click

from orlop import engine
from orlop.cli.ending import asked_to_end
from orlop.cli.options import configured, mapping
from orlop.cli.streams import ended_with, packed, pump
from orlop.errors import Invalid
from orlop.state import Row
from orlop.volumes import migration
from orlop.volumes.service import VolumeService
from orlop.volumes.uses import holder

_UNPACK = ("tar", "--extract", "--file=-", "--numeric-owner", "--xattrs", "--acls", "--preserve-permissions")


@click.command()
@click.argument("name")
@click.option("--to", "driver", metavar="DRIVER", help="The driver that is to keep it.")
@click.option("-o", "--opt", "options", multiple=True, metavar="KEY=VALUE", help="Option of that driver; repeatable.")
@click.option("--commit", is_flag=True, help="Remove what an earlier migration has kept.")
@click.option("--back", is_flag=True, help="Let the kept volume be the volume again; what was written since is kept.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@configured
def migrate(
    config: engine.Config,
    name: str,
    driver: str | None,
    options: Sequence[str],
    commit: bool,
    back: bool,
    dry_run: bool,
) -> None:
    """Move a volume to another driver, under the same name.

    Nobody may use it meanwhile. Every file is copied and compared before the name changes hands; the old volume is kept
    until --commit, and --back returns to it.
    """
    if (driver is not None) + commit + back != 1:
        raise Invalid("say one of --to DRIVER, --commit and --back")
    service = engine.volumes(config)
    if dry_run:
        click.echo(_plan(service, name, driver, commit=commit))
    elif driver is not None:
        row = _migrate(service, name, driver, mapping(options))
        click.echo(
            f"{name} is kept by {row.driver} now; the old one is there until 'orlop volume migrate {name} --commit'"
        )
    else:
        row = migration.commit(service, name) if commit else migration.back(service, name)
        click.echo(f"{name}: {'removed what ' + row.driver + ' kept' if commit else 'back at ' + row.driver}")


def _plan(service: VolumeService, name: str, driver: str | None, *, commit: bool) -> str:
    if driver is not None:
        row, size = service.get(name), None
        size = service.usage(row)
        amount = "its files" if size is None else f"{size} bytes"
        return f"would copy {amount} of {name} from driver {row.driver} to {service.driver(driver) and driver}"
    row = migration.kept(service, name)
    return f"would {'remove' if commit else 'go back to'} the volume {name} that driver {row.driver} has kept"


def _migrate(service: VolumeService, name: str, driver: str, options: dict[str, str]) -> Row:
    size = service.usage(service.get(name)) or 0

    def copy(source: Path, target: Path) -> None:
        _copy(source, target, f"migrate {name}", size)

    with asked_to_end():
        return migration.migrate(service, name, driver, options, holder("migrate"), copy)


def _copy(source: Path, target: Path, label: str, size: int) -> None:
    """All that the target can store; what it cannot, tar says, and comparing decides whether that matters."""
    unpacking = subprocess.Popen([*_UNPACK, f"--directory={target}"], stdin=subprocess.PIPE)
    with packed(source) as (_, files), ended_with(unpacking):
        assert unpacking.stdin is not None  # noqa: S101 - a pipe was asked for
        with suppress(BrokenPipeError), unpacking.stdin as sink:
            pump(files, sink, label, size)
