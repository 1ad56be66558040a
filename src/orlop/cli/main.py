"""The command ``orlop``: its parser, and how errors reach a person."""

import sys

import click

from orlop import __version__
from orlop.cli.serve import serve
from orlop.errors import OrlopError


class Commands(click.Group):
    """A group of commands in which an orlop error is one line on standard error and exit status 1."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except OrlopError as error:
            click.echo(f"orlop: {error}", err=True)
            sys.exit(1)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "ORLOP"})
@click.version_option(__version__, "-v", "--version", prog_name="orlop", message="%(prog)s %(version)s")
def main() -> None:
    """Storage for containers: volumes that survive whatever is killed."""


main.add_command(serve)
