"""Named volumes: who has them, where they are mounted, when they may go.

Once for all drivers. Every verb takes the volume's lock, so a backend that hangs blocks its own volume only; looking
(`get`, `all`) takes no lock and asks no backend. Between two durable steps stands a named `step`, at which tests
kill the process: whatever was acknowledged is true afterwards, and everything else is finished or undone by
`orlop.volumes.reconcile`.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from orlop.errors import Conflict, InUse, Invalid, NotFound, OrlopError
from orlop.grammar import volume_name
from orlop.kernel.locks import Locks
from orlop.mount import Mounter
from orlop.state import Holder, Row, State
from orlop.volumes import definitions
from orlop.volumes.attachments import Attachments
from orlop.volumes.driver import Measured, Resizable, Telling, Tended, VolumeDriver
from orlop.volumes.everywhere import Everywhere
from orlop.volumes.host import FROM, Host, noted, volume
from orlop.volumes.life import Life
from orlop.volumes.options import refuse_unknown
from orlop.volumes.seals import Seals
from orlop.volumes.vault import Vault

DEFAULT_DRIVER = "local"
DRIVER_OPTION = "driver"
CHANGEABLE = frozenset({"size"})
"""The options that `VolumeService.update` may change."""

_log = logging.getLogger(__name__)


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
        vault: Vault,
        mounts: Path | None = None,
        default_driver: str = DEFAULT_DRIVER,
    ):
        """``root`` holds ``volumes/``, what drivers store, and ``mounts/``, where they are mounted if not elsewhere.

        ``vault`` keeps the secrets that are typed as options; ``drivers`` must find them there.
        """
        self.default_driver = default_driver
        self.state, self.drivers, self.host, self._locks = state, drivers, host, locks
        self.folder = root / "volumes"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.attachments = Attachments(state, mounter, drivers, host, root, mounts)
        self.seals = Seals(vault, locks, state, self.folder, host.step)
        self.life = Life(state, self.attachments, self.seals, host, self.folder)
        self.everywhere = Everywhere(state, drivers, locks, self.life.adopt, self.life.forget)

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
        """Where the files of ``row`` are while somebody uses it."""
        return self.attachments.path(row)

    def users(self, row: Row) -> list[str]:
        """Who uses ``row``, in words; empty if nobody does."""
        return self.attachments.users(row)

    def usage(self, row: Row) -> int | None:
        """Bytes of this host's storage that ``row`` takes; None where its driver cannot tell."""
        driver = self.driver(row.driver)
        mountpoint = self.path(row) if self.state.is_attached(row.key) else None
        return driver.usage(volume(row), mountpoint) if isinstance(driver, Measured) else None

    def status(self, row: Row) -> Mapping[str, object]:
        """What the driver of ``row`` has to say about it; no backend is asked."""
        driver = self.driver(row.driver)
        return driver.status(volume(row)) if isinstance(driver, Telling) else {}

    def tend(self) -> None:
        """See to what drivers have to see to, all the time."""
        for driver in self.drivers.values():
            if isinstance(driver, Tended):
                driver.tend()

    def driver(self, name: str) -> VolumeDriver:
        """The driver ``name``; raises `NotFound` and says which there are."""
        return self.attachments.driver(name)

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

        The option ``driver`` chooses the driver. What is typed where that expects a secret is kept in the vault, and
        recorded by name. Raises `Conflict` if it exists with other options, `Invalid`, or what the driver raises; then
        nothing has changed.
        """
        plan = self.plan(name, options, labels)
        with self._locks.hold(name):
            existing = self.state.live(name)
            if exist_ok and existing is not None and existing.phase == "ready":
                self._refuse_difference(existing, plan.driver, plan.options)
                return existing
            self.make_way(name)
            return self.life.finish(self.life.record(plan))

    def plan(self, name: str, options: Mapping[str, str], labels: Mapping[str, str] | None = None) -> Row:
        """What `create` would make; raises `Invalid` for names and options that make no sense."""
        volume_name(name)
        driver, options = _choose_driver(options, self.default_driver)
        refuse_unknown(options, [*self.driver(driver).options(), FROM], driver)
        created = datetime.fromtimestamp(self.host.now(), UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return Row("", name, driver, options, labels or {}, created)

    def make_way(self, name: str) -> None:
        """Clear away what was interrupted about ``name``, whose lock is held; `Conflict` if there is that volume."""
        existing = self.state.live(name)
        if existing is not None and existing.phase == "ready":
            raise Conflict(f"a volume {name!r} exists already; choose another name")
        if existing is not None:  # half made by somebody who was never told that it exists
            self.life.discard(existing)
        self.life.clear(name)

    def update(self, name: str, options: Mapping[str, str], labels: Mapping[str, str] | None = None) -> Row:
        """Change options (``size``: grow) and labels of a volume, in use or not."""
        with self._locked(name) as row:
            driver, changed = self.driver(row.driver), {**row.options, **options}
            refuse_unknown(options, driver.options(), row.driver)
            for option in (option for option in options if options[option] != row.options.get(option)):
                if option not in CHANGEABLE or not isinstance(driver, Resizable):
                    raise Invalid(f"option {option!r} of volume {name!r} cannot change once it exists")
            new = replace(row, options=changed, labels={**row.labels, **(labels or {})})
            # Recorded first: storage that is smaller than recorded is made good at the next mount.
            with noted(self.state, self.host, "update", row, options) as change:
                change.replace(new)
            self.host.step("update: recorded")
            try:
                self.attachments.resize(new)
            except OrlopError:
                with self.state.change() as change:
                    change.replace(row)
                raise
            self.host.step("update: resized")
            definitions.write(self.folder, new)
            return new

    def remove(self, name: str) -> None:
        """Take the volume away; until the grace is over `restore` brings it back. Raises `InUse`, naming the users.

        A volume that all hosts share goes at once: no other host knows of this one's trash, and would use meanwhile
        what is deleted when the grace is over.
        """
        with self._locked(name) as row:
            self.refuse_use(row)
            self.attachments.take_down(row)
            self.host.step("remove: detached")
            self.life.remove(row)

    def restore(self, name: str, new_name: str | None = None) -> Row:
        """Bring back the volume ``name`` that was removed last, under ``new_name`` if that is given."""
        new_name = volume_name(new_name or name)
        # Both names: the old one keeps the storage from being purged meanwhile.
        with self.lock_both(name, new_name):
            row = replace(self._trashed(name), name=new_name, phase="ready", removed=None)
            if self.state.live(new_name):
                raise Conflict(f"a volume {new_name!r} exists; restore under another name")
            self.life.restore(row)
        return row

    def purge(self, row: Row) -> None:
        """Delete the storage of a removed volume for good."""
        with self._locks.hold(row.name):
            current = self.state.by_key(row.key)
            if current is None or current.phase not in ("trashed", "removing") or current.removed != row.removed:
                return
            self.life.purge(current)

    # mount, unmount

    def mount(self, name: str, holder: Holder) -> Path:
        """Where the volume is mounted, from now on for ``holder`` too; asking again counts once more."""
        with self._locked(name) as row:
            return self.attachments.mount(row, holder)

    def unmount(self, name: str, holder: Holder) -> None:
        """``holder`` needs it once less; after the last it is detached, unless the kernel still shows a user."""
        with self._locked(name) as row:
            self.attachments.unmount(row, holder)

    def detach(self, name: str) -> None:
        """Take the volume down that no process uses, although engines seem to hold it: what they never gave back.

        Raises `InUse`, naming the users, as `remove` does.
        """
        with self._locked(name) as row:
            self.refuse_use(row)
            self.attachments.take_down(row)
            with noted(self.state, self.host, "unmount", row, durable=False):
                pass

    def lock(self, name: str, patience: float | None = None) -> AbstractContextManager[None]:
        """Nobody else works on the volume ``name`` meanwhile, whatever there is of it; raises `Busy`."""
        return self._locks.hold(name, patience)

    @contextmanager
    def lock_both(self, name: str, other: str) -> Iterator[None]:
        """Nobody else works on either volume meanwhile; whoever needs two locks them in this order."""
        with ExitStack() as locks:
            for each in sorted({name, other}):
                locks.enter_context(self._locks.hold(each))
            yield

    def alone(self, name: str) -> AbstractContextManager[Row]:
        """The volume ``name``, on which nobody else works meanwhile; raises `NotFound`."""
        return self._locked(name)

    @contextmanager
    def locked(self, row: Row) -> Iterator[Row | None]:
        """Nobody else works on ``row`` meanwhile; yields it as it is now, None if it has gone."""
        with self._locks.hold(row.name, patience=1.0):
            yield self.state.by_key(row.key)

    # parts

    def _trashed(self, name: str) -> Row:
        found = [row for row in self.state.unfinished() if row.phase == "trashed" and row.name == name]
        if not found:
            raise NotFound(f"no volume {name!r} in the trash")
        return max(found, key=lambda row: row.removed or 0)

    @contextmanager
    def _locked(self, name: str) -> Iterator[Row]:
        with self._locks.hold(name):
            yield self.get(name)

    def refuse_use(self, row: Row) -> None:
        """Raises `InUse`, naming the users, if there are any."""
        users = self.users(row)
        if users:
            raise InUse(f"volume {row.name!r} is in use by {', '.join(users)}; stop that first")

    def _refuse_difference(self, row: Row, driver: str, options: Mapping[str, str]) -> None:
        if row.driver != driver:
            raise Conflict(f"volume {row.name!r} exists with driver {row.driver!r}")
        secrets = self.life.secrets(driver)
        for option in {**row.options, **options}:
            has, asked = row.options.get(option), options.get(option)
            if option in secrets:
                if not self.seals.same(has, asked):
                    raise Conflict(f"volume {row.name!r} exists with another secret in option {option!r}")
            elif has != asked:
                has = row.options.get(option, "none")
                raise Conflict(f"volume {row.name!r} exists with option {option!r} {has!r}; see 'orlop volume update'")


def _choose_driver(options: Mapping[str, str], default: str) -> tuple[str, dict[str, str]]:
    rest = dict(options)
    if rest.get("backing") == "relocatable":  # Cloudstor's word for what another driver does here
        default = "bucket"
    return rest.pop(DRIVER_OPTION, default), rest
