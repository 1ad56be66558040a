"""``orlop system events``: what happened to which volume, and when."""

import json
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import click

from orlop import engine
from orlop.cli import output
from orlop.cli.filters import Filters
from orlop.cli.options import Duration, configured
from orlop.cli.template import Template
from orlop.state import Event, State

_POLL = 0.2
_FIELDS = ("Action", "Actor", "Type", "scope", "time", "timeNano")


class Moment(click.ParamType[float]):
    """Seconds since the epoch, written as such, as a date (RFC 3339), or as a duration before now: ``10m``."""

    name = "moment"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse; a bare number is a moment, not a duration, as Docker has it."""
        text = str(value)
        try:
            return float(text)
        except ValueError:
            pass
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return time.time() - Duration().convert(text, param, ctx)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


@click.command()
@click.option("--since", type=Moment(), help="Not what happened before: a date, seconds since 1970, or 10m.")
@click.option("--until", type=Moment(), help="Not what happened after.")
@click.option("-f", "--filter", "filters", multiple=True, metavar="KEY=VALUE",
              help="Only event=create, mount, ..., or volume=NAME; repeatable.")  # fmt: skip
@click.option("--format", "format_", help="json, or a Go template such as '{{.Action}} {{.Actor.ID}}'.")
@click.option("--follow", is_flag=True, help="Go on with what happens from now on.")
@configured
def events(
    config: engine.Config,
    since: float | None,
    until: float | None,
    filters: Sequence[str],
    format_: str | None,
    follow: bool,
) -> None:
    """Show what happened to volumes; the last 10,000 events are kept."""
    wanted = Filters(filters, ("event", "volume"))
    template = Template(format_, _FIELDS) if format_ not in (None, "json") else None
    for event in _read(engine.volumes(config).state, until, follow=follow):
        if (since or 0) <= event.time <= (until or event.time) and _matches(event, wanted):
            click.echo(template.render(_document(event)) if template else _line(event, as_json=format_ == "json"))


def _read(state: State, until: float | None, *, follow: bool) -> Iterator[Event]:
    seen = 0
    while True:
        for event in state.events(seen):
            seen = event.seq
            yield event
        if not follow or (until is not None and time.time() > until):
            return
        time.sleep(_POLL)


def _matches(event: Event, wanted: Filters) -> bool:
    return wanted.any_of("event", lambda text: text == event.action) and wanted.any_of(
        "volume", lambda text: text == event.volume
    )


def _line(event: Event, *, as_json: bool) -> str:
    if as_json:
        return json.dumps(_document(event), ensure_ascii=False)
    moment = datetime.fromtimestamp(event.time, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    details = output.pairs(event.details).replace(",", ", ")
    return f"{moment} volume {event.action} {event.volume}" + (f" ({details})" if details else "")


def _document(event: Event) -> output.Record:
    """As Docker's API has it."""
    return {
        "Type": "volume",
        "Action": event.action,
        "Actor": {"ID": event.volume, "Attributes": dict(event.details)},
        "scope": "local",
        "time": int(event.time),
        "timeNano": int(event.time * 1_000_000_000),
    }
