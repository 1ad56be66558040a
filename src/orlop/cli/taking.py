"""One snapshot, as commands make it: with what the volume's labels wish, and saying what went wrong."""

from collections.abc import Callable, Sequence

import click

from orlop.cli.bars import Bar, tell
from orlop.cli.engines import Engines
from orlop.cli.hooks import ContainerHooks
from orlop.errors import Unavailable
from orlop.state import Row
from orlop.volumes.timeline import Timeline
from orlop.volumes.wishes import wishes

FULL = click.option("--full", is_flag=True, help="Read every file again, whatever seems to be as it was.")


def take(
    timeline: Timeline,
    name: str,
    labels: Callable[[Row], dict[str, str]],
    engines: Engines,
    *,
    paused: bool,
    full: bool,
    notes: Sequence[str],
) -> None:
    """Make a snapshot of the volume ``name`` and print its reference; raises `Unavailable` if it lacks something.

    ``full``: see `Timeline.take`.
    """
    wished = wishes(name, labels(timeline.service.get(name)))
    hooks, bar = ContainerHooks(name, wished, engines), Bar(f"snapshot {name}")
    try:
        made, saved = timeline.take(
            name, paused=paused or wished.pause, full=full, notes=notes, progress=bar, hooks=hooks
        )
    finally:
        bar.close()
        hooks.tell()
    tell(saved.problems)
    click.echo(made.reference)
    if not saved.is_complete:
        raise Unavailable(f"snapshot {made.reference} is not complete: see above")
    if hooks.problem:
        raise Unavailable(f"snapshot {made.reference} was made, but the hook after it failed: see above")
