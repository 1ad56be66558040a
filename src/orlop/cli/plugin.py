"""``orlop plugin``: what an engine needs that finds orlop over the network, or keeps it as a managed plugin."""

from pathlib import Path

import click

from orlop.errors import Invalid
from orlop.packaging import spec as discovery

_PATH = click.Path(path_type=Path)


@click.group()
def plugin() -> None:
    """Make orlop a plugin of engines that do not share its socket."""


@plugin.command()
@click.argument("name")
@click.argument("address")
@click.option("--ca", type=_PATH, help="The authority that signed the daemon's certificate (PEM).")
@click.option("--cert", type=_PATH, help="The engine's certificate (PEM).")
@click.option("--key", type=_PATH, help="The engine's private key (PEM).")
def spec(name: str, address: str, ca: Path | None, cert: Path | None, key: Path | None) -> None:
    """Print what belongs into /etc/docker/plugins.

    With certificates it is NAME.json, for a daemon at HOST:PORT; without them NAME.spec, for unix:///PATH. The paths
    are those on the engine's host.
    """
    if ca and cert and key:
        click.echo(discovery.document(name, address, discovery.Certificates(ca, cert, key)), nl=False)
    elif ca or cert or key:
        raise Invalid("--ca, --cert and --key go together: orlop hears only engines that have a certificate")
    else:
        click.echo(discovery.spec(address), nl=False)


@plugin.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Replace a DIR that an earlier build made.")
def build(folder: Path, force: bool) -> None:
    """Make DIR for 'docker plugin create NAME DIR', from this interpreter and this host's programs."""
    # Imported here: no other command needs it.
    from orlop.packaging import managed

    managed.build(folder, force=force)
    click.echo(folder)
