"""The command ``orlop``: its parser, and how errors reach a person."""

import errno
import sys
from collections.abc import Mapping
from typing import ClassVar

import click

from orlop import __version__
from orlop.cli.lazily import LazyGroup
from orlop.errors import OrlopError

_COMMANDS = (
    "backup", "completion", "driver", "hydrate", "info", "install", "keep", "plugin", "restore", "secret", "serve",
    "snapshot", "system", "uninstall", "volume",
)  # fmt: skip
_ELSEWHERE = {"info": "system", "restore": "backup", "uninstall": "install"}
"""Those that are not in the module of their name."""


class Commands(LazyGroup):
    """The commands, in which an orlop error is one line on standard error and exit status 1."""

    modules: ClassVar[Mapping[str, str]] = {name: _ELSEWHERE.get(name, name) for name in _COMMANDS}

    def invoke(self, ctx: click.Context) -> object:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except OrlopError as error:
            click.echo(f"orlop: {error}", err=True)
            sys.exit(1)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # whoever read our output has seen enough: click ends quietly
            click.echo(
                f"orlop: '{error.filename}': {error.strerror}" if error.filename else f"orlop: {error}", err=True
            )
            sys.exit(1)
        except KeyboardInterrupt:
            sys.exit(130)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "ORLOP"})
@click.version_option(__version__, "-v", "--version", prog_name="orlop", message="%(prog)s %(version)s")
def main() -> None:
    """Storage for containers: volumes that survive whatever is killed."""
