"""``orlop secret``: Docker's verbs about secrets, for those that volumes refer to as ``secret:NAME``."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import IO

import click

from orlop import engine
from orlop.cli import output
from orlop.cli.filters import Filters
from orlop.cli.options import configured, each
from orlop.errors import InUse, Invalid
from orlop.volumes.references import named
from orlop.volumes.seals import is_sealed
from orlop.volumes.service import VolumeService
from orlop.volumes.vault import LIMIT

_HEADINGS = {"Name": "NAME", "CreatedAt": "CREATED AT", "Volumes": "VOLUMES", "Sealed": "SEALED"}


@click.group()
def secret() -> None:
    """Manage secrets: passwords and keys that volumes refer to as secret:NAME."""


@secret.command()
@click.argument("name")
@click.argument("file", type=click.File("rb"), default="-", metavar="[FILE|-]")
@click.option("--replace", is_flag=True, help="Put it in the place of the one that has the name, for its next use.")
@configured
def create(config: engine.Config, name: str, file: IO[bytes], replace: bool) -> None:
    """Create a secret from a file or standard input, and print its name.

    It is kept encrypted. A line end is kept as well; drivers that take one line leave it out.
    """
    if "~" in name:
        raise Invalid(f"secret name {name!r} is not allowed: '~' is in those that orlop makes for volumes")
    content = file.read(LIMIT + 1)
    if not content:
        raise Invalid(f"secret {name!r} would be empty; nothing was done")
    engine.volumes(config).seals.vault.put(name, content, replace=replace)
    click.echo(name)


@secret.command()
@click.option("-q", "--quiet", is_flag=True, help="Names only.")
@click.option("-f", "--filter", "filters", multiple=True, metavar="KEY=VALUE", help="Only those with name=.")
@click.option("--format", "format_", help="table, json, or a Go template such as '{{.Name}}'.")
@configured
def ls(config: engine.Config, quiet: bool, filters: Sequence[str], format_: str | None) -> None:
    """List secrets, and which volumes refer to them; never what they hold."""
    service, wanted = engine.volumes(config), Filters(filters, ("name",))
    names = [name for name in service.seals.vault.names() if _matches(name, wanted)]
    documents = [_document(service, name) for name in names]
    records = [{**document, "Volumes": ",".join(_volumes(service, str(document["Name"])))} for document in documents]
    output.show(records, _HEADINGS, ["Name", "CreatedAt", "Volumes"], "{{.Name}}" if quiet else format_)


@secret.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("-f", "--format", "format_", help="json, or a Go template such as '{{.CreatedAt}}'.")
@configured
def inspect(config: engine.Config, names: Sequence[str], format_: str | None) -> None:
    """Show all that is known about secrets but what they hold, as JSON."""
    service, found = engine.volumes(config), []

    def look(name: str) -> None:
        found.append(_document(service, name))

    failed = each(names, look)
    output.show_documents(found, format_)
    sys.exit(failed)


@secret.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@configured
def rm(config: engine.Config, names: Sequence[str]) -> None:
    """Remove secrets that no volume refers to."""
    service = engine.volumes(config)

    def remove(name: str) -> None:
        service.seals.vault.changed(name)  # there has to be one
        volumes = _volumes(service, name)
        if volumes:
            raise InUse(f"secret {name!r} is in use by volume {', '.join(volumes)}; remove that first")
        service.seals.vault.delete(name)
        click.echo(name)

    sys.exit(each(names, remove))


def _matches(name: str, wanted: Filters) -> bool:
    return wanted.any_of("name", lambda text: text in name)


def _document(service: VolumeService, name: str) -> output.Record:
    created = datetime.fromtimestamp(service.seals.vault.changed(name), UTC).isoformat(timespec="seconds")
    return {
        "Name": name,
        "CreatedAt": created.replace("+00:00", "Z"),
        "Volumes": _volumes(service, name),
        "Sealed": is_sealed(name),
    }


def _volumes(service: VolumeService, secret: str) -> list[str]:
    """The volumes that refer to ``secret``; one in the trash can come back, and will need it."""
    rows = [*service.all(), *service.state.unfinished()]
    return [
        f"{row.name} (removed)" if row.phase == "trashed" else row.name for row in rows if secret in named(row.options)
    ]
