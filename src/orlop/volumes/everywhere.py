"""What other hosts made and removed: keeps this host's list like those of the backends that know all volumes.

Engines are answered from the list alone, since one error makes them forget a volume; so it is brought up to date in
between, and for a moment before somebody looks at it. `compare` is a pure function of what is remembered and what was
found.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from orlop.errors import Busy, OrlopError
from orlop.kernel.locks import Locks
from orlop.state import Row, State
from orlop.volumes.driver import Copying, Listed, Volume, VolumeDriver
from orlop.volumes.host import volume

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Difference:
    """A volume of which this host does not know, or knows something else: what to do about ``row``."""

    verb: Literal["adopt", "change", "forget"]
    row: Row


def compare(known: Sequence[Row], found: Mapping[str, Volume], driver: str, taken: frozenset[str]) -> list[Difference]:
    """What to do so that this host knows of ``driver`` what was ``found``, by name.

    ``known`` are its volumes of that driver, as they were before anybody looked; ``taken`` are all names in use here.
    """
    rows = {row.name: row for row in known}
    fresh = (volume for name, volume in found.items() if name not in rows and name not in taken)
    adopted = [Difference("adopt", _row(volume, driver)) for volume in fresh]
    gone = [Difference("forget", row) for row in known if row.name not in found]
    return [*adopted, *_changed(rows, found), *gone]


class _Look(threading.Thread):
    """Refreshes the list, after the look ``before`` it has ended."""

    def __init__(self, refresh: Callable[[], object], before: threading.Thread | None) -> None:
        super().__init__(daemon=True, name="volumes of all hosts")
        self._refresh, self._before = refresh, before
        self.is_waiting = True

    def run(self) -> None:
        if self._before is not None:
            self._before.join()
        self.is_waiting, self._before = False, None
        self._refresh()


class Everywhere:
    """The list of one host; ``forget`` forgets a volume of which nothing is left."""

    def __init__(
        self,
        state: State,
        drivers: Mapping[str, VolumeDriver],
        locks: Locks,
        adopt: Callable[[Row], None],
        forget: Callable[[Row], None],
    ):
        """``adopt`` makes a volume known here, ``forget`` one of which nothing is left unknown."""
        self._state, self._locks, self._adopt, self._forget = state, locks, adopt, forget
        self._drivers = {name: driver for name, driver in drivers.items() if isinstance(driver, Listed)}
        self._last: _Look | None = None
        self._starting = threading.Lock()

    def fresh(self, patience: float) -> bool:
        """Bring the list up to date; whether that has ended after ``patience`` seconds. It goes on without us."""
        if not any(driver.is_set_up() for driver in self._drivers.values()):
            return True
        with self._starting:
            # Whoever comes while a look is under way waits for another: it may be older than what he knows to be so.
            if self._last is None or not self._last.is_waiting:
                self._last = _Look(self.refresh, self._last)
                self._last.start()
            look = self._last
        look.join(patience)
        return not look.is_alive()

    def refresh(self) -> list[Difference]:
        """Look, and do what is to be done; returns what was done. A backend that does not answer changes nothing."""
        done = []
        for name, driver in self._drivers.items():
            if driver.is_set_up():
                try:
                    done += [difference for difference in self._look(name, driver) if self._do(difference)]
                except OrlopError as error:
                    _log.warning("volumes of driver %s: %s", name, error)
        return done

    def _look(self, name: str, driver: Listed) -> list[Difference]:
        known = [row for row in self._state.ready() if row.driver == name and driver.lists(volume(row))]
        found = {each.name: each for each in driver.found()}
        # Asked after the backend: what is on its way now is somebody's here.
        taken = {row.name for row in (*self._state.ready(), *self._state.unfinished()) if row.phase != "trashed"}
        return compare(known, found, name, frozenset(taken))

    def _do(self, difference: Difference) -> bool:
        try:
            with self._locks.hold(difference.row.name, patience=0):
                return self._work(difference)
        except Busy:  # somebody works on it: the next look tells how that ended
            return False

    def _work(self, difference: Difference) -> bool:
        row, now = difference.row, self._state.by_key(difference.row.key)
        if difference.verb == "adopt":
            if self._state.live(row.name) is None:
                self._adopt(row)
                return True
        elif difference.verb == "change" and now is not None and now.phase == "ready":
            with self._state.change() as change:
                change.replace(row)
            return True
        elif difference.verb == "forget" and now == row:
            return self._let_go(row)
        return False

    def _let_go(self, row: Row) -> bool:
        if self._state.is_attached(row.key):
            _log.warning("volume %r was removed by another host, and is in use here", row.name)
            return False
        driver = self._drivers[row.driver]
        if isinstance(driver, Copying):
            driver.leave(volume(row))
        self._forget(row)
        _log.info("volume %r was removed by another host", row.name)
        return True


def _changed(rows: Mapping[str, Row], found: Mapping[str, Volume]) -> Iterator[Difference]:
    """Volumes that another host made anew, or let grow. Other options can be said in several ways."""
    for name, row in rows.items():
        volume = found.get(name)
        if volume is None:
            continue
        if volume.created != row.created:
            yield Difference("change", replace(_row(volume, row.driver), key=row.key, phase="ready"))
        elif volume.options.get("size", "") != row.options.get("size", ""):
            size = {"size": volume.options["size"]} if "size" in volume.options else {}
            yield Difference("change", replace(row, options={**row.options, **size}))


def _row(volume: Volume, driver: str) -> Row:
    return Row("", volume.name, driver, volume.options, volume.labels, volume.created)
