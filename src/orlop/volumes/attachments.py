"""Where volumes are mounted, and when they are taken down: after the last user has gone, and not before.

Its callers hold the volume's lock.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from orlop.errors import Conflict, InUse, Invalid, NotFound, OrlopError, Unavailable
from orlop.kernel.namespaces import companions
from orlop.kernel.reach import refuse_another
from orlop.mount import Mounter
from orlop.state import Holder, Row, State
from orlop.volumes.driver import DATA, Imaged, InPlace, Resizable, VolumeDriver
from orlop.volumes.host import Host, noted, volume
from orlop.volumes.uses import Uses


class Attachments:
    """The volumes that are in use on this host: in place, or mounted in a folder of ``mounts`` named for their key."""

    def __init__(
        self, state: State, mounter: Mounter, drivers: Mapping[str, VolumeDriver], host: Host, root: Path,
        mounts: Path | None,
    ) -> None:  # fmt: skip
        """``root`` holds ``volumes/``, and ``mounts/`` if those have no place of their own in ``mounts``.

        There, engines may see nothing but that place: new volumes are not used in place then. Raises `Conflict` if
        volumes are mounted at another place now.
        """
        self.mounts, self.mounter, self._folder = mounts or root / "mounts", mounter, root / "volumes"
        self.uses = Uses(state, host.boot, host.now, host.hold_grace)
        self._state, self._drivers, self._host, self._allows_in_place = state, drivers, host, mounts is None
        self.mounts.mkdir(parents=True, exist_ok=True)
        self._keep_to_one_place()

    def path(self, row: Row) -> Path:
        """Where the files of ``row`` are while somebody uses it; if it is used in place, always."""
        return Path(self.place(row.key, in_place=row.in_place))

    def place(self, key: str, *, in_place: bool) -> str:
        """The same, of the volume ``key``: quickly, for lists."""
        return f"{self._folder}/{key}/{DATA}" if in_place else f"{self.mounts}/{key}"

    def places(self, keys: Iterable[str]) -> dict[Path, str]:
        """The same of many, each with its key; those of which nothing is attached are not used in place."""
        in_place = self._state.in_place()
        return {Path(self.place(key, in_place=key in in_place)): key for key in keys}

    def driver(self, name: str) -> VolumeDriver:
        """The driver ``name``; raises `NotFound` and says which there are."""
        if name not in self._drivers:
            raise NotFound(f"no volume driver {name!r}; there are {', '.join(sorted(self._drivers))}")
        return self._drivers[name]

    def is_in_place(self, plan: Row) -> bool:
        """Whether what ``plan`` says is to be used in place."""
        driver = self.driver(plan.driver)
        return self._allows_in_place and isinstance(driver, InPlace) and driver.is_in_place(volume(plan))

    def mount(self, row: Row, holder: Holder) -> Path:
        """Mount ``row``, if it is not and has to be, for ``holder`` too; asking again counts once more."""
        target = self.path(row)
        before = self._state.is_attached(row.key)
        there = not row.in_place and self.mounter.mounted(target)
        # After a power cut nothing is attached here; only what other hosts can see must be remembered over it.
        durable = not there and self.driver(row.driver).scope == "global"
        with noted(self._state, self._host, "mount", row, _who(holder), durable=durable) as change:
            change.hold(row.key, holder, self._host.boot, self._host.now())
            if not there:
                change.attach(row.key, self._host.boot)
        self._host.step("mount: recorded")
        try:
            if not there:
                self._bring_up(row)
            self._show(row, holder.pid)
        except BaseException:
            self._give_up(row, holder, before=before)
            raise
        self._host.step("mount: mounted")
        return target

    def unmount(self, row: Row, holder: Holder) -> None:
        """``holder`` needs ``row`` once less; after the last it is detached, unless the kernel still shows a user."""
        down = False
        try:
            wanted = self._is_held_besides(row, holder) or self.seen(row)
            down = not wanted and self._detach(row)
        finally:
            with noted(self._state, self._host, "unmount", row, _who(holder), durable=False) as change:
                change.release(row.key, holder)
                if down:
                    change.detach(row.key)
        self._host.step("unmount: recorded")

    def died(self) -> frozenset[str]:
        """The keys of the volumes whose FUSE program has ended under their mount."""
        return frozenset(place.name for place in self.mounter.died() if place.parent == self.mounts)

    def settle(self, row: Row) -> None:
        """Detach ``row`` if nobody uses it, for all that can be known."""
        used = self.seen(row) or row.key in self.uses.standing()
        if not used and self._detach(row):
            self._forget(row)

    def take_down(self, row: Row) -> None:
        """Detach ``row``; raises `InUse` if somebody uses it."""
        self._unmount(row)
        if self._state.is_attached(row.key):
            self.driver(row.driver).detach(volume(row))
            self._host.step("down: detached")
            self._forget(row)

    def resize(self, row: Row) -> None:
        """Make the storage fit ``row``'s options, mounted or not; fine where its driver knows no sizes."""
        driver = self.driver(row.driver)
        if isinstance(driver, Resizable):
            driver.resize(volume(row), self.path(row) if self._is_there(row) else None)

    def users(self, row: Row) -> list[str]:
        """Who uses ``row``, in words; empty if nobody does."""
        return self.uses.of(row.key, self.seen(row))

    def unused(self) -> Iterator[tuple[Row, Sequence[str]]]:
        """What engines took a while ago, and no process uses; and which engines."""
        held = self.places(self.uses.standing() & self._state.attached().keys())
        # One look at the host for all of them; only what it does not show is looked at more closely.
        seen = self.mounter.holders(held)
        for key in sorted(key for place, key in held.items() if place not in seen):
            row, takers = self._state.by_key(key), self.uses.takers(key)
            if row is not None and takers and not self.users(row):
                yield row, takers

    def seen(self, row: Row) -> Sequence[int]:
        """One process of every mount namespace that shows ``row`` elsewhere than where orlop mounts it, or did."""
        target = self.path(row)
        found = self.mounter.holders([target]).get(target, ())
        if found or row.in_place or row.driver not in self._drivers or not self._state.is_attached(row.key):
            return found
        driver = self._drivers[row.driver]
        return self.mounter.left(driver.image(volume(row)), target) if isinstance(driver, Imaged) else ()

    def processes(self, row: Row) -> Sequence[int]:
        """Every process that can work in ``row`` now; those that see only orlop's own mount are left out."""
        return companions(self.seen(row))

    def heal(self, row: Row) -> None:
        """Mount ``row`` anew, if it is still dead, for all who use it; what stands against it is remembered."""
        if self._is_there(row):
            return
        try:
            self._bring_up(row)
            trouble = ""
        except OrlopError as error:
            trouble = str(error)
            raise
        finally:
            with self._state.change(durable=False) as change:
                change.trouble(row.key, trouble)

    def _bring_up(self, row: Row) -> None:
        """Mount ``row``, also where processes still see a mount of it that died."""
        mounts = self.driver(row.driver).attach(volume(row))
        self._host.step("mount: attached")
        try:
            if row.in_place:
                _refuse_absent(self.path(row))
            else:
                self.mounter.heal(mounts, self.path(row))
        except Unavailable as problem:
            # Several volumes may have the same source.
            raise Unavailable(f"volume {row.name!r}: {problem}") from problem
        self._finish_growth(row)

    def _give_up(self, row: Row, holder: Holder, *, before: bool) -> None:
        """``row`` could not be mounted for ``holder``; others who have it since ``before`` keep what they have."""
        if not before:
            self.take_down(row)
            return
        with self._state.change(durable=False) as change:
            change.release(row.key, holder)

    def _finish_growth(self, row: Row) -> None:
        """Go on with a growth that a crash interrupted; storage that another host made larger is fine."""
        with suppress(Invalid):
            self.resize(row)

    def _is_held_besides(self, row: Row, holder: Holder) -> bool:
        """Whether anybody holds ``row`` but ``holder``, once."""
        mine = (holder.client, holder.id)
        holds = self._state.holds(row.key)
        return any((hold.holder.client, hold.holder.id) != mine or hold.count > 1 for hold in holds)

    def _detach(self, row: Row) -> bool:
        """Unmount, then let the driver detach; False if the kernel says that it is in use after all."""
        try:
            self._unmount(row)
        except InUse:
            return False
        self._host.step("unmount: unmounted")
        self.driver(row.driver).detach(volume(row))
        self._host.step("unmount: detached")
        return True

    def _is_there(self, row: Row) -> bool:
        """Whether the files of ``row`` can be used now."""
        return row.in_place or self.mounter.mounted(self.path(row))

    def _show(self, row: Row, pid: int) -> None:
        """See to it that the engine ``pid`` has the files of ``row`` where we have them."""
        if row.in_place:
            refuse_another(pid, self.path(row))
        else:
            self.mounter.reach(pid, self.path(row))

    def _unmount(self, row: Row) -> None:
        if not row.in_place:
            self.mounter.unmount(self.path(row))

    def _forget(self, row: Row) -> None:
        with self._state.change(durable=False) as change:
            change.detach(row.key)

    def _keep_to_one_place(self) -> None:
        """Refuse another place than a process before us used, as long as something may be mounted there."""
        place, before = str(self.mounts.resolve()), self._state.setting("mounts")
        if place == before:
            return
        if before is not None and self._host.boot in self._state.attached().values():
            raise Conflict(f"volumes are mounted below '{before}' already; use --mounts {before}, or stop their users")
        with self._state.change() as change:
            change.set("mounts", place)


def _refuse_absent(folder: Path) -> None:
    if not folder.is_dir():
        raise Unavailable(f"its folder '{folder}' is missing")


def _who(holder: Holder) -> dict[str, str]:
    return {"container": holder.id, "client": holder.client}
