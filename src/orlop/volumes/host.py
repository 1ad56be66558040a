"""What the services ask of their surroundings, and how they write down what they did."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from orlop.state import Change, Row, State
from orlop.volumes.driver import Volume

_log = logging.getLogger(__name__)


FROM = "from"
"""The option that every driver's volumes have: ``VOLUME@SNAPSHOT``, with whose files a new volume begins."""


@dataclass(frozen=True, slots=True)
class Host:
    """The clock, the boot, and how patient this host is; tests answer instead."""

    boot: str
    now: Callable[[], float]
    step: Callable[[str], object] = str
    """Called between two durable changes, with the name of the place."""
    hold_grace: float = 120.0
    """Seconds in which an engine that took a volume may not have started its container yet."""
    trash_grace: float = 86_400.0
    """Seconds in which a removed volume can be restored."""


@contextmanager
def noted(
    state: State, host: Host, action: str, row: Row, details: Mapping[str, str] | None = None, *, durable: bool = True
) -> Iterator[Change]:
    """A change of the state, and the event that says so: both or neither."""
    details = details or {"driver": row.driver}
    with state.change(durable=durable) as change:
        yield change
        change.note(host.now(), action, row.name, details)
    _log.info("%s %s", action, row.name, extra={"volume": row.name, **details})


def volume(row: Row) -> Volume:
    """``row`` as drivers see it: what a volume begins with is no business of theirs."""
    options = {name: value for name, value in row.options.items() if name != FROM}
    return Volume(row.name, row.driver, options, row.labels, row.key, row.created)
