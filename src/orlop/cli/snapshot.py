"""``orlop snapshot``: volumes as they were at one moment."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from orlop.cli import output
from orlop.cli.bars import Bar, tell
from orlop.cli.ending import asked_to_end
from orlop.cli.engines import Engines, asking
from orlop.cli.labels import known_labels
from orlop.cli.options import FOLDER, each
from orlop.cli.repositories import with_timeline
from orlop.cli.scheduled import run
from orlop.cli.taking import FULL, take
from orlop.cli.upkeep import check, prune
from orlop.cli.viewing import mount
from orlop.volumes import census
from orlop.volumes.timeline import Snapshot, Timeline, check_note

_HEADINGS = {
    "Reference": "SNAPSHOT",
    "Volume": "VOLUME",
    "CreatedAt": "CREATED AT",
    "How": "HOW",
    "Host": "HOST",
    "Notes": "NOTES",
    "Id": "ID",
}


@click.group()
def snapshot() -> None:
    """Make snapshots of volumes, in use or not, and bring them back."""


for _command in (prune, check, run, mount):
    snapshot.add_command(_command)


@snapshot.command()
@click.argument("names", nargs=-1, required=True, metavar="VOLUME...")
@click.option("--pause", is_flag=True, help="Pause the containers that use it, where nothing else holds files still.")
@FULL
@click.option("--note", "notes", multiple=True, help="Words to find it by; repeatable.")
@with_timeline
@asking
def create(
    timeline: Timeline, engines: Engines, names: Sequence[str], pause: bool, full: bool, notes: Sequence[str]
) -> None:
    """Make a snapshot of each volume and print its reference.

    Only what has changed since the last one is read and kept. A volume in use stays in use.
    """
    for note in notes:
        check_note(note)
    labels = known_labels(engines)
    with asked_to_end():
        sys.exit(each(names, lambda name: take(timeline, name, labels, engines, paused=pause, full=full, notes=notes)))


@snapshot.command()
@click.argument("name", required=False, metavar="[VOLUME]")
@click.option("-q", "--quiet", is_flag=True, help="References only.")
@click.option("--format", "format_", help="table, json, or a Go template such as '{{.Reference}}'.")
@with_timeline
def ls(timeline: Timeline, name: str | None, quiet: bool, format_: str | None) -> None:
    """List snapshots, the oldest first."""
    records = [_record(each) for each in timeline.all(name)]
    fields = ["Reference", "CreatedAt", "How", "Host", "Notes"]
    output.show(records, _HEADINGS, fields, "{{.Reference}}" if quiet else format_)


@snapshot.command()
@click.argument("references", nargs=-1, required=True, metavar="VOLUME@SNAPSHOT...")
@click.option("-f", "--format", "format_", help="json, or a Go template such as '{{.Size}}'.")
@with_timeline
def inspect(timeline: Timeline, references: Sequence[str], format_: str | None) -> None:
    """Show all that is known about snapshots, as JSON."""
    found: list[output.Record] = []

    def look(reference: str) -> None:
        each_ = timeline.find(reference)
        counted = census.count(timeline.repository, each_)
        about = {"Tree": each_.file.tree, "Parent": each_.file.parent, "Notes": list(each_.notes)}
        found.append({**_record(each_), **about, "Files": counted.files, "Size": counted.size})

    failed = each(references, look)
    output.show_documents(found, format_)
    sys.exit(failed)


@snapshot.command()
@click.argument("old", metavar="VOLUME@SNAPSHOT")
@click.argument("new", metavar="VOLUME@SNAPSHOT")
@with_timeline
def diff(timeline: Timeline, old: str, new: str) -> None:
    """Show what is different in the second: A(dded), C(hanged) and D(eleted) paths, as 'docker diff' does."""
    for change in census.differences(timeline.repository, timeline.find(old), timeline.find(new)):
        click.echo(
            f"{change.kind} {change.path!r}" if not change.path.isprintable() else f"{change.kind} {change.path}"
        )


@snapshot.command()
@click.argument("reference", metavar="VOLUME@SNAPSHOT")
@click.argument("path", default="")
@click.option("--to", "folder", type=FOLDER, required=True,
              help="The folder to put it into, made if missing; what else is there stays.")  # fmt: skip
@with_timeline
def restore(timeline: Timeline, reference: str, path: str, folder: Path) -> None:
    """Put a snapshot's files, or those below PATH, into a folder of the host.

    'orlop volume rollback' brings a volume back, and 'orlop volume create -o from=VOLUME@SNAPSHOT' makes a new one.
    """
    found, bar = timeline.find(reference), Bar(f"restore {reference}")
    with asked_to_end():
        try:
            done = timeline.restore(found, folder, path, progress=bar)
        finally:
            bar.close()
    tell(done.problems)
    click.echo(f"{done.files} files, {output.human(done.size)} of {found.reference} are in '{folder}'")
    sys.exit(bool(done.problems))


@snapshot.command()
@click.argument("references", nargs=-1, required=True, metavar="VOLUME@SNAPSHOT...")
@with_timeline
def rm(timeline: Timeline, references: Sequence[str]) -> None:
    """Forget snapshots; 'orlop snapshot prune' gives back the room that only they took."""

    def forget(reference: str) -> None:
        timeline.forget(timeline.find(reference))
        click.echo(reference)

    sys.exit(each(references, forget))


def _record(found: Snapshot) -> output.Record:
    return {
        "Reference": found.reference,
        "Volume": found.volume,
        "CreatedAt": found.time.isoformat(timespec="seconds"),
        "How": found.how,
        "Host": found.host,
        "Notes": ", ".join(found.notes),
        "Id": found.id,
    }
