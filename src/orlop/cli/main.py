"""The command ``orlop``: its parser, and how errors reach a person."""

import errno
import importlib
import sys

import click

from orlop import __version__
from orlop.errors import OrlopError

_COMMANDS = (
    "backup", "completion", "driver", "hydrate", "info", "install", "keep", "plugin", "restore", "secret", "serve",
    "snapshot", "system", "uninstall", "volume",
)  # fmt: skip
"""Each is in the module of its name, which is imported when it is asked for: starting has to be quick."""
_ELSEWHERE = {"info": "system", "restore": "backup", "uninstall": "install"}


class Commands(click.Group):
    """The commands, in which an orlop error is one line on standard error and exit status 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See `click.Group.list_commands`."""
        return sorted({*_COMMANDS, *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See `click.Group.get_command`."""
        if cmd_name not in _COMMANDS:
            return super().get_command(ctx, cmd_name)
        module = importlib.import_module(f"orlop.cli.{_ELSEWHERE.get(cmd_name, cmd_name)}")
        command: click.Command = getattr(module, cmd_name)
        return command

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
