"""Commands that are imported when they are asked for: starting has to be quick, and much of orlop is large."""

import importlib
from collections.abc import Mapping
from typing import ClassVar

import click

from orlop.kernel.lasting import lasting


class LazyGroup(click.Group):
    """A group that knows some of its commands by name and module of `orlop.cli`; there they have the same name."""

    modules: ClassVar[Mapping[str, str]] = {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See `click.Group.list_commands`."""
        return sorted({*self.modules, *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See `click.Group.get_command`."""
        if cmd_name not in self.modules:
            return super().get_command(ctx, cmd_name)
        with lasting():
            module = importlib.import_module(f"orlop.cli.{self.modules[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        return command
