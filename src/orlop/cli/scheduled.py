"""``orlop snapshot run``: the snapshots that are due by the labels of volumes, and what then may go."""

import os
import sys
from collections.abc import Callable, Iterator

import click

from orlop.cli import output
from orlop.cli.bars import tell
from orlop.cli.ending import asked_to_end
from orlop.cli.engines import Engines, asking
from orlop.cli.hooks import ContainerHooks
from orlop.cli.labels import known_labels
from orlop.cli.repositories import with_timeline
from orlop.errors import OrlopError, Unavailable
from orlop.snapshots.saved import Saved
from orlop.state import Row
from orlop.volumes import schedule
from orlop.volumes.timeline import Timeline
from orlop.volumes.wishes import Wishes, wishes

_ALONE = "@snapshot run"


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what is due, and do nothing.")
@with_timeline
@asking
def run(timeline: Timeline, engines: Engines, dry_run: bool) -> None:
    """Make the snapshots that are due, and forget those that no policy keeps.

    Labels of a volume say when and what: orlop.snapshot.schedule=hourly (daily, weekly, monthly, 15m, 6h, 2d) and
    orlop.snapshot.keep=24h,7d,4w. 'orlop serve' starts this every minute.
    """
    if dry_run:
        sys.exit(_Round(timeline, engines).plan())
    with asked_to_end(), timeline.service.lock(_ALONE, patience=0):
        sys.exit(_Round(timeline, engines).go())


class _Round:
    """One look at all volumes; a volume that fails does not keep others from their snapshots."""

    def __init__(self, timeline: Timeline, engines: Engines):
        self._timeline, self._engines, self._labels = timeline, engines, known_labels(engines)
        self._failed = False

    def plan(self) -> int:
        """Say what is due; returns the exit status."""
        for row, wished in self._due(self._say):
            click.echo(f"would make a snapshot of {row.name}: {wished.schedule}, and this period has none")
        return self._failed

    def go(self) -> int:
        """Do what is due; returns the exit status."""
        taken = False
        for row, wished in self._due(self._complain):
            try:
                self._take(row, wished)
                self._forget(row, wished)
                taken = True
            except (OrlopError, OSError) as error:
                self._complain(row, error)
        cleaned = schedule.clean(self._timeline) if taken else None
        if cleaned and cleaned.freed:
            click.echo(f"deleted {output.human(cleaned.freed)} that no snapshot needs")
        return self._failed

    def _due(self, complain: Callable[[Row, Exception], None]) -> Iterator[tuple[Row, Wishes]]:
        for row in self._timeline.service.all():
            try:
                wished = wishes(row.name, self._labels(row))
                is_due = bool(wished.schedule) and schedule.is_due(self._timeline, row, wished.schedule)
            except (OrlopError, OSError) as error:
                complain(row, error)
                continue
            if is_due:
                yield row, wished

    def _take(self, row: Row, wished: Wishes) -> None:
        hooks = ContainerHooks(row.name, wished, self._engines)
        made, saved = self._timeline.take(row.name, paused=wished.pause, notes=["scheduled"], hooks=hooks)
        hooks.tell()
        click.echo(f"{made.reference} was made: {wished.schedule} ({made.how})")
        tell(saved.problems)
        problem = "; ".join(filter(None, (hooks.problem, _missing(saved))))
        if problem:
            raise Unavailable(problem)

    def _forget(self, row: Row, wished: Wishes) -> None:
        for each in schedule.forget(self._timeline, row.name, wished.keep):
            click.echo(f"{each.snapshot.reference} was forgotten: its volume's policy does not keep it")

    def _complain(self, row: Row, error: Exception) -> None:
        self._say(row, error)
        schedule.failed(self._timeline, row, str(error))

    def _say(self, row: Row, error: Exception) -> None:
        click.echo(f"orlop: snapshot of volume {row.name!r}: {error}", err=True)
        self._failed = True


def _missing(saved: Saved) -> str:
    if saved.is_complete:
        return ""
    first = next(iter(saved.problems), None)
    what = f": {os.fsdecode(first.path)!r}: {first.reason}" if first else ""
    return f"snapshot is not complete{what}"
