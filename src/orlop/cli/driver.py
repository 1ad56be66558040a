"""``orlop driver``: which kinds of storage there are, and what each can be told."""

import sys
from collections.abc import Sequence

import click

from orlop import engine
from orlop.cli import output
from orlop.cli.options import configured, each
from orlop.errors import NotFound
from orlop.volumes.driver import Measured, Resizable, VolumeDriver
from orlop.volumes.remote import Recipe, RemoteDriver

_HEADINGS = {"Name": "DRIVER", "Scope": "SCOPE", "Options": "OPTIONS"}


@click.group()
def driver() -> None:
    """See volume drivers: kinds of storage."""


@driver.command()
@click.option("--format", "format_", help="table, json, or a Go template such as '{{.Name}}'.")
@configured
def ls(config: engine.Config, format_: str | None) -> None:
    """List the drivers with the names of their options."""
    records = [
        {"Name": name, "Scope": driver.scope, "Options": ",".join(driver.options())}
        for name, driver in sorted(engine.drivers(config).items())
    ]
    output.show(records, _HEADINGS, ["Name", "Scope", "Options"], format_)


@driver.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("-f", "--format", "format_", help="json, or a Go template; a page to read if not given.")
@configured
def inspect(config: engine.Config, names: Sequence[str], format_: str | None) -> None:
    """Show a driver's options, each with its help."""
    drivers, found = engine.drivers(config), []

    def look(name: str) -> None:
        if name not in drivers:
            raise NotFound(f"no volume driver {name!r}; there are {', '.join(sorted(drivers))}")
        found.append(_document(name, drivers[name]))

    failed = each(names, look)
    if format_ is None:
        for document in found:
            _page(document)
    else:
        output.show_documents(found, format_)
    sys.exit(failed)


def needs(recipe: Recipe) -> str:
    """What must be there on the host, in words."""
    return f"the package {recipe.package}" if recipe.package else f"a kernel with {recipe.filesystem}"


def _document(name: str, driver: VolumeDriver) -> output.Record:
    recipe = driver.recipe if isinstance(driver, RemoteDriver) else None
    return {
        "Name": name,
        "Scope": driver.scope,
        "Resizable": isinstance(driver, Resizable),
        "Measured": isinstance(driver, Measured),
        "Needs": needs(recipe) if recipe else "",
        "Health": recipe.health if recipe else "",
        "Options": dict(driver.options()),
    }


def _page(document: output.Record) -> None:
    click.echo(f"Driver: {document['Name']}\nScope: {document['Scope']}")
    click.echo(f"Can grow: {'yes' if document['Resizable'] else 'no'}")
    for name in ("Needs", "Health"):
        if document[name]:
            click.echo(f"{name}: {document[name]}")
    click.echo("Options:")
    options = document["Options"]
    assert isinstance(options, dict)  # noqa: S101 - made just above
    for line in output.table([(f"  {option}", text) for option, text in options.items()]):
        click.echo(line)
