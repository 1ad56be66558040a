"""``orlop completion``: the lines that teach a shell to complete orlop's commands and options."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a completion script; bash: source <(orlop completion bash)."""
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell!r}")
    click.echo(kind(ctx.find_root().command, {}, "orlop", "_ORLOP_COMPLETE").source())
