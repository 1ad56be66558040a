"""Named volumes: who has them, where they are mounted, when they may go.

Once for all drivers. Every verb takes the volume's lock, so a backend that hangs blocks its own volume only; looking
(`get`, `all`) takes no lock and asks no backend. Between two durable steps stands a named `step`, at which tests
kill the process: whatever was acknowledged is true afterwards, and everything else is finished or undone by
`orlop.volumes.reconcile`.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from orlop.errors import Conflict, InUse, Invalid, NotFound, OrlopError
from orlop.grammar import volume_name
from orlop.kernel import processes
from orlop.kernel.locks import Locks
from orlop.mount import Mounter
from orlop.state import Hold, Holder, Row, State
from orlop.volumes import definitions
from orlop.volumes.driver import Measured, Resizable, Volume, VolumeDriver
from orlop.volumes.options import refuse_unknown

DEFAULT_DRIVER = "local"
DRIVER_OPTION = "driver"
CHANGEABLE = frozenset({"size"})
"""The options that `VolumeService.update` may change."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Host:
    """What the service asks of its surroundings, so that tests can answer instead."""

    boot: str
    now: Callable[[], float]
    step: Callable[[str], object] = str
    hold_grace: float = 120.0
    """Seconds in which an engine that took a volume may not have started its container yet."""
    trash_grace: float = 86_400.0
    """Seconds in which a removed volume can be restored."""


class VolumeService:
    """The volumes of one host."""

    def __init__(
        self,
        root: Path,
        state: State,
        mounter: Mounter,
        drivers: Mapping[str, VolumeDriver],
        locks: Locks,
        host: Host,
    ):
        """``root`` holds ``volumes/`` (what drivers store) and ``mounts/`` (where volumes are mounted)."""
        self.state, self.mounter, self.drivers, self.host = state, mounter, drivers, host
        self.folder, self._mounts, self._locks = root / "volumes", root / "mounts", locks
        self.folder.mkdir(parents=True, exist_ok=True)
        self._mounts.mkdir(exist_ok=True)

    # looking

    def get(self, name: str) -> Row:
        """The volume ``name``; raises `NotFound`."""
        row = self.state.live(name)
        if row is None or row.phase != "ready":
            raise NotFound(f"no volume {name!r}")
        return row

    def all(self) -> list[Row]:
        """Every volume, by name."""
        return self.state.ready()

    def path(self, row: Row) -> Path:
        """Where ``row`` is mounted while somebody uses it."""
        return self._mounts / row.key

    def usage(self, row: Row) -> int | None:
        """Bytes of this host's storage that ``row`` takes; None where its driver cannot tell."""
        driver = self.driver(row.driver)
        mountpoint = self.path(row) if self.state.is_attached(row.key) else None
        return driver.usage(volume(row), mountpoint) if isinstance(driver, Measured) else None

    def driver(self, name: str) -> VolumeDriver:
        """The driver ``name``; raises `NotFound` and says which there are."""
        if name not in self.drivers:
            raise NotFound(f"no volume driver {name!r}; there are {', '.join(sorted(self.drivers))}")
        return self.drivers[name]

    # create, change, remove, restore

    def create(
        self,
        name: str,
        options: Mapping[str, str],
        labels: Mapping[str, str] | None = None,
        *,
        exist_ok: bool = True,
    ) -> Row:
        """Make the volume ``name``; one that is there already with the same options is fine (if ``exist_ok``).

        The option ``driver`` chooses the driver. Raises `Conflict` if it exists with other options, `Invalid`, or
        what the driver raises; then nothing has changed.
        """
        volume_name(name)
        driver, options = _choose_driver(options)
        refuse_unknown(options, self.driver(driver).options(), driver)
        with self._locks.hold(name):
            existing = self.state.live(name)
            if existing is not None:
                if not exist_ok:
                    raise Conflict(f"a volume {name!r} exists already; choose another name")
                _refuse_difference(existing, driver, options)
                return existing if existing.phase == "ready" else self.finish(existing)
            created = datetime.fromtimestamp(self.host.now(), UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
            row = self.state.insert(Row("", name, driver, options, labels or {}, created))
            return self.finish(row)

    def finish(self, row: Row) -> Row:
        """Make what ``row`` records as being created; undo it if that fails. The caller holds its lock."""
        self.host.step("create: recorded")
        try:
            self.folder.joinpath(row.key).mkdir(mode=0o700, exist_ok=True)
            self.driver(row.driver).create(volume(row))
            self.host.step("create: made")
            definitions.write(self.folder, row)
            self.host.step("create: defined")
            self.state.move(row.key, "ready")
        except BaseException:
            self._undo(row)
            raise
        self._note("create", row, driver=row.driver)
        return replace(row, phase="ready")

    def update(self, name: str, options: Mapping[str, str], labels: Mapping[str, str] | None = None) -> Row:
        """Change options (``size``: grow) and labels of a volume, in use or not."""
        with self._locked(name) as row:
            driver, changed = self.driver(row.driver), {**row.options, **options}
            refuse_unknown(options, driver.options(), row.driver)
            for option in (option for option in options if options[option] != row.options.get(option)):
                if option not in CHANGEABLE or not isinstance(driver, Resizable):
                    raise Invalid(f"option {option!r} of volume {name!r} cannot change once it exists")
            new = replace(row, options=changed, labels={**row.labels, **(labels or {})})
            if options and isinstance(driver, Resizable):
                driver.resize(volume(new), self.path(row) if self.state.is_attached(row.key) else None)
            self.host.step("update: done")
            self.state.change(new)
            definitions.write(self.folder, new)
            self._note("update", new, **options)
            return new

    def remove(self, name: str) -> None:
        """Take the volume away; until the grace is over `restore` brings it back. Raises `InUse`, naming the users."""
        with self._locked(name) as row:
            self._refuse_use(row)
            self._take_down(row)
            self.host.step("remove: detached")
            self.state.move(row.key, "trashed", self.host.now())
            self.host.step("remove: recorded")
            definitions.trash(self.folder, row.key)
            self._note("remove", row, driver=row.driver)

    def restore(self, name: str, new_name: str | None = None) -> Row:
        """Bring back the volume ``name`` that was removed last, under ``new_name`` if that is given."""
        found = [row for row in self.state.unfinished() if row.phase == "trashed" and row.name == name]
        if not found:
            raise NotFound(f"no volume {name!r} in the trash")
        row = max(found, key=lambda row: row.removed or 0)
        row = replace(row, name=volume_name(new_name or name), phase="ready", removed=None)
        with self._locks.hold(row.name):
            if self.state.live(row.name):
                raise Conflict(f"a volume {row.name!r} exists; restore under another name")
            self.state.change(row)
            self.state.move(row.key, "ready")
            self.host.step("restore: recorded")
            definitions.restore(self.folder, row.key)
            definitions.write(self.folder, row)
            self._note("restore", row, driver=row.driver)
        return row

    def purge(self, row: Row) -> None:
        """Delete the storage of a removed volume for good."""
        with self._locks.hold(row.name):
            current = self.state.by_key(row.key)
            if current is None or current.phase not in ("trashed", "removing"):
                return
            self.state.move(row.key, "removing", row.removed)
            self.host.step("purge: recorded")
            self._delete(current)
            self._note("purge", row, driver=row.driver)

    # mount, unmount

    def mount(self, name: str, holder: Holder) -> Path:
        """Where the volume is mounted, from now on for ``holder`` too; asking again counts once more."""
        with self._locked(name) as row:
            target = self.path(row)
            if not self.mounter.mounted(target):
                self._bring_up(row, target)
            self.host.step("mount: mounted")
            self.state.hold(row.key, holder, self.host.boot, self.host.now())
            self.host.step("mount: held")
            self._note("mount", row, container=holder.id, client=holder.client)
            return target

    def unmount(self, name: str, holder: Holder) -> None:
        """``holder`` needs it once less; after the last it is detached, unless the kernel still shows a user."""
        with self._locked(name) as row:
            self.state.release(row.key, holder)
            self.host.step("unmount: released")
            self._note("unmount", row, container=holder.id, client=holder.client)
            if not self.state.holds(row.key):
                self.settle(row)

    def settle(self, row: Row) -> bool:
        """Detach ``row`` if nobody uses it; whether that was so. The caller holds its lock."""
        if self.users(row):
            return False
        try:
            self._take_down(row)
        except InUse:
            return False
        return True

    def users(self, row: Row) -> list[str]:
        """Who uses ``row``, in words: processes that see it, and engines that took it a moment ago."""
        seen = [f"process {pid} ({processes.command(pid)})" for pid in self.mounter.holders(self.path(row))]
        return seen + [f"{hold.holder.client} for {hold.holder.id[:12]}" for hold in self.vouched(row.key)]

    def vouched(self, key: str) -> list[Hold]:
        """The holds that count although the kernel shows nothing: recent ones of an engine process that still runs."""
        young = self.host.now() - self.host.hold_grace
        return [hold for hold in self.state.holds(key) if hold.since > young and self._alive(hold)]

    @contextmanager
    def locked(self, row: Row) -> Iterator[Row | None]:
        """Nobody else works on ``row`` meanwhile; yields it as it is now, None if it has gone."""
        with self._locks.hold(row.name, patience=1.0):
            yield self.state.by_key(row.key)

    # parts

    @contextmanager
    def _locked(self, name: str) -> Iterator[Row]:
        self.get(name)  # an unknown volume needs no waiting
        with self._locks.hold(name):
            yield self.get(name)

    def _bring_up(self, row: Row, target: Path) -> None:
        driver = self.driver(row.driver)
        self.mounter.unmount(target)  # a dead mount, or its remains
        self.state.attach(row.key, self.host.boot)
        self.host.step("mount: recorded")
        try:
            mounts = driver.attach(volume(row))
            self.host.step("mount: attached")
            self.mounter.mount(mounts, target)
            if isinstance(driver, Resizable):
                driver.resize(volume(row), target)  # a growth that a crash interrupted
        except BaseException:
            self._take_down(row)
            raise

    def _take_down(self, row: Row) -> None:
        self.mounter.unmount(self.path(row))
        if self.state.is_attached(row.key):
            self.host.step("unmount: unmounted")
            self.driver(row.driver).detach(volume(row))
            self.host.step("unmount: detached")
            self.state.detach(row.key)

    def _refuse_use(self, row: Row) -> None:
        users = self.users(row)
        if users:
            raise InUse(f"volume {row.name!r} is in use by {', '.join(users)}; stop that first")

    def _undo(self, row: Row) -> None:
        try:
            self._delete(row)
        except OrlopError as error:
            # The row stays, invisible; reconciling goes on with it.
            _log.warning("volume %r is half made: %s", row.name, error)

    def _delete(self, row: Row) -> None:
        self.driver(row.driver).remove(volume(row))
        definitions.delete(self.folder, row.key)
        self.host.step("delete: removed")
        self.state.delete(row.key)

    def _alive(self, hold: Hold) -> bool:
        if hold.boot != self.host.boot:
            return False
        holder = hold.holder
        return holder.pid == 0 or processes.start_time(holder.pid) == holder.started

    def _note(self, action: str, row: Row, **details: str) -> None:
        _log.info("%s %s", action, row.name, extra={"volume": row.name, **details})
        try:
            self.state.note(self.host.now(), action, row.name, details)
        except OrlopError as error:
            # What happened has happened: a full disk must not turn it into an error.
            _log.warning("event %s of volume %r is not kept: %s", action, row.name, error)


def volume(row: Row) -> Volume:
    """``row`` as drivers see it."""
    return Volume(row.name, row.driver, row.options, row.labels, row.key)


def _choose_driver(options: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    rest = dict(options)
    return rest.pop(DRIVER_OPTION, DEFAULT_DRIVER), rest


def _refuse_difference(row: Row, driver: str, options: Mapping[str, str]) -> None:
    if row.driver != driver:
        raise Conflict(f"volume {row.name!r} exists with driver {row.driver!r}")
    for option in {**row.options, **options}:
        if row.options.get(option) != options.get(option):
            has = row.options.get(option, "none")
            raise Conflict(f"volume {row.name!r} exists with option {option!r} {has!r}; see 'orlop volume update'")
