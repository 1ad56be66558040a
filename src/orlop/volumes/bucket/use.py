"""What one host does with volumes in buckets: takes and gives back leases, brings files here, ships what changes.

The driver's verbs and the keeper are two views of this. What saves and restores is large, and loaded when it is needed.
"""

import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from orlop.errors import Busy, InUse, NoSpace, NotFound, OrlopError, Unavailable
from orlop.kernel import freeze, loop, processes
from orlop.kernel.mounter import KernelMounter
from orlop.kernel.namespaces import companions
from orlop.volumes import image, references
from orlop.volumes.bucket import heads, holding, settings
from orlop.volumes.bucket.backend import Backend
from orlop.volumes.bucket.catalog import Definition
from orlop.volumes.bucket.copy import Base, Copy
from orlop.volumes.bucket.lease import Clock, Fenced, Lease, Owner, acquire, release
from orlop.volumes.bucket.sessions import Phase, Session, Sessions
from orlop.volumes.driver import Volume
from orlop.volumes.options import mode, number

PATIENCE = 1.5
"""How long to wait for a lease, in times for which one is given: a dead host keeps it for 1.1."""
STALLED = 60.0
"""Seconds without a byte from the store, after which a last shipment is given up for now."""
_LOOK = 0.1
_log = logging.getLogger(__name__)


class Broken(Unavailable):
    """The volume is ours, but its files must not be read before it is attached anew."""


class Use:
    """One host's use; ``root`` holds a copy of each volume that was used, ``run`` (in memory) what is used now."""

    def __init__(
        self,
        root: Path,
        run: Path,
        mounts: Path,
        told: Mapping[str, str],
        resolve: references.Resolve,
        *,
        cache: Path | None = None,
        boot: str = "",
        clock: Clock | None = None,
        step: Callable[[str], object] = str,
        hydrate: Callable[[str], object] = str,
    ):
        """``told`` are the daemon's `settings.SETTINGS`; ``mounts`` is where volumes are mounted.

        In ``cache`` is kept what the indexes of buckets said.

        ``step`` is called between two durable steps, with the name of the place. ``hydrate`` starts a process that
        calls `orlop.volumes.bucket.fetching.fetch_missing` for the volume whose storage it is given.
        """
        self._root, self._mounts, self.told, self._resolve = root, mounts, told, resolve
        self._cache = cache
        self.sessions, self.clock, self.step = Sessions(run), clock or Clock(), step
        self._boot = boot or processes.boot_id()
        self.hydrate = hydrate
        self._backends: dict[tuple[object, ...], Backend] = {}

    def backend(self, options: Mapping[str, str]) -> Backend:
        """The bucket that a volume's options, or the daemon's settings, name."""
        place = settings.place(options, self.told)
        name = place.address, place.password, *sorted(place.settings.items())
        if name not in self._backends:
            self._backends[name] = Backend(place, self._resolve, self._cache)
        return self._backends[name]

    def copy(self, key: str) -> Copy:
        """This host's copy of the volume whose storage is ``key``."""
        return Copy(self._root / key)

    def owner(self, token: str) -> Owner:
        """This host, in one use of a volume."""
        return Owner(socket.gethostname(), self._boot, token)

    def users(self, key: str) -> Sequence[int]:
        """The processes that use a volume now."""
        mounter, target = KernelMounter(), self._mounts / key
        return companions(mounter.holders([target]).get(target) or mounter.left(self.copy(key).image, target))

    def ship(self, session: Session, *, last: bool = False) -> None:
        """Bring what has changed into the bucket; raises `Fenced` if another host has the volume."""
        from orlop.volumes.bucket.shipping import ship

        backend = self.backend(session.options)
        definition = backend.catalog.get(session.name)
        with self.sessions.shipping(session.key):
            head = heads.look(backend.store, session.name)
            if head is None or (head.epoch, head.session) != (session.epoch, session.token):
                raise Fenced(f"another host has volume {session.name!r} since epoch {session.epoch} is over")

            def publish(snapshot: str) -> None:
                self.step("bucket: saved")
                heads.publish(backend.store, head, snapshot)
                self.step("bucket: published")

            def users() -> Sequence[int]:
                return self.users(session.key)

            copy = self.copy(session.key)
            base = ship(backend.repository, definition, copy, session.epoch, users, publish, in_use=not last)
            if last:
                copy.know(replace(base, clean=True))
            self.change(session, shipped=self.clock.wall(), reason="")

    def bring(self, session: Session, keep: Callable[[], object]) -> None:
        """Take the lease and bring the files here; ``keep`` is called as soon as there is a lease to renew.

        Raises `InUse` if another host has the volume, `NotFound` if it is gone.
        """
        try:
            backend = self.backend(session.options)
            definition = backend.catalog.get(session.name)
            lease = self.leased(backend, definition, session.token)
        except BaseException:
            self.sessions.end(session)
            raise
        try:
            self.step("bucket: leased")
            session = self.change(session, epoch=lease.epoch, lost_at=lease.lost_at)
            keep()
            head = heads.claim(backend.store, lease)
            self.step("bucket: claimed")
            self._fill(backend, definition, session, head.snapshot)
            self.change(session, phase="using", shipped=self.clock.wall())
        except BaseException:
            self.let_go(session)
            raise

    def _fill(self, backend: Backend, definition: Definition, session: Session, snapshot: str) -> None:
        """Let the copy go on from ``snapshot``, unless it does already."""
        self._alone(session)
        volume, copy = definition.as_volume(), self.copy(session.key)
        base = copy.base
        if base is not None and base.goes_on_from(definition.id, snapshot):
            _log.info("volume %r goes on from what is here", session.name)
            copy.know(base.published(snapshot))
            if base.lazy:
                self._resume(session)
        else:
            self._replace(copy, base, definition)
            root = image.Root(number(volume, "uid", 0), number(volume, "gid", 0), mode(volume, "mode", 0o755))
            copy.begin(Base(definition.id, snapshot), settings.size(volume), root)
            self.step("bucket: begun")
            self._fetch(backend, definition, session, snapshot)
        copy.grow(settings.size(volume))

    def _fetch(self, backend: Backend, definition: Definition, session: Session, snapshot: str) -> None:
        from orlop.volumes.bucket import lazy
        from orlop.volumes.bucket.shipping import clock_of, fetch

        copy, wish = self.copy(session.key), settings.lazy(session.volume, self.told)
        file = backend.repository.snapshot(snapshot) if snapshot else None
        if file is not None and lazy.is_worth_it(backend.repository, file, wish, copy):
            self._hydrate(session)
            try:
                lazy.begin(backend.repository, file, copy, self.sessions.place(session.key), clock_of)
            except NoSpace as error:
                _log.info("volume %r is fetched before it is used: %s", session.name, error)
            else:
                return
        fetch(backend.repository, definition, snapshot, copy)

    def _resume(self, session: Session) -> None:
        from orlop.volumes.bucket import lazy

        self._hydrate(session)
        self.change(session, fetched=lazy.resume(self.copy(session.key), self.sessions.place(session.key)))

    def _hydrate(self, session: Session) -> None:
        """Start a process that fetches what will be missing: it takes as long to start as placeholders to be made."""
        self.hydrate(session.key)

    def _alone(self, session: Session) -> None:
        """Wait for the end of a process that fetches for an earlier use: it may overwrite what is written now."""
        holding.forget(self.sessions.place(session.key))
        end = self.clock.now() + STALLED
        while self.sessions.is_hydrated(session.key):
            if self.clock.now() > end:
                raise Busy(f"files of volume {session.name!r} are still fetched for an earlier use; try again")
            self.clock.sleep(_LOOK)

    def is_untouched(self, session: Session) -> bool:
        """Whether files are missing, and nobody has changed any of the others: there is nothing to ship."""
        base = self.copy(session.key).base
        return base is not None and base.lazy > 0 and not _may_be_ahead(self.copy(session.key))

    def complete(self, session: Session) -> None:
        """Wait until all files are here. Raises `Unavailable` if nothing comes for a while, `Fenced` or `Broken`."""
        copy, seen, since = self.copy(session.key), -1, self.clock.now()
        while (base := copy.base) is not None and base.lazy:
            session = self.change(session)
            if session.phase == "broken":
                raise Broken(session.reason)
            if session.fetched > seen:
                seen, since = session.fetched, self.clock.now()
            if self.clock.now() - since > STALLED:
                raise Unavailable(f"volume {session.name!r} cannot be shipped before all its files are here; try again")
            self.clock.sleep(_LOOK)

    def _replace(self, copy: Copy, base: Base | None, definition: Definition) -> None:
        """Whatever is in the copy is not lost if it never became part of the volume."""
        if base is not None and not _is_set_aside(copy, base, definition.name) and base.id != definition.id:
            copy.remove()

    def goes_on(self, session: Session) -> bool:
        """Whether the lease is still ours. One that nobody renewed, because all processes were dead, is renewed now.

        Raises `Unavailable` if that cannot be told.
        """
        late = session.epoch > 0 and self.clock.now() >= session.lost_at
        return session.phase != "lost" and (not late or self.sessions.is_kept or self.regain(session))

    def regain(self, session: Session) -> bool:
        """Renew a lease after its time; False unless no other host had it meanwhile. Raises `Unavailable`."""
        backend = self.backend(session.options)
        try:
            ttl = settings.ttl(backend.catalog.get(session.name).as_volume())
            lease = acquire(backend.store, session.name, self.owner(session.token), self.clock, ttl=ttl)
        except (Busy, NotFound) as error:
            _log.warning("the lease of volume %r is over: %s", session.name, error)
            return False
        if lease.epoch == session.epoch:
            return self.sessions.change(session, lost_at=lease.lost_at) is not None
        release(backend.store, lease, self.clock)
        return False

    def give_up(self, session: Session) -> None:
        """Another host may have it: nobody writes here any more.

        If none has written, the next use goes on from what is here; else that is kept.
        """
        self._shut_down(session)
        if loop.is_attached(self.copy(session.key).image):
            # A container still has this filesystem, which takes nothing any more: the next use needs another.
            self.abandon(session)
        self.let_go(session)

    def abandon(self, session: Session) -> None:
        """Another host has it: keep what was not shipped."""
        holding.forget(self.sessions.place(session.key))
        with self.sessions.shipping(session.key):
            copy = self.copy(session.key)
            base = copy.base
            if base is not None and not _is_set_aside(copy, base, session.name):
                copy.know(replace(base, clean=True))
            self.sessions.end(session)

    def leave(self, volume: Volume) -> None:
        """Delete the copy of a volume that is gone; what was never part of it is kept."""
        with self.sessions.shipping(volume.key):
            copy = self.copy(volume.key)
            base = copy.base
            if base is not None:
                _is_set_aside(copy, base, volume.name)
            copy.leave()

    def let_go(self, session: Session) -> None:
        """The use is over; another host may have the volume at once."""
        backend = self.backend(session.options)
        # First: a keeper that still renews must not take what is released.
        self.sessions.end(session)
        holding.forget(self.sessions.place(session.key))
        try:
            lease = acquire(backend.store, session.name, self.owner(session.token), self.clock)
            release(backend.store, lease, self.clock)
        except OrlopError as error:
            _log.warning("the lease of volume %r ends by itself: %s", session.name, error)

    def leased(self, backend: Backend, definition: Definition, token: str) -> Lease:
        """The lease, for which it is waited as long as a dead host would keep it; raises `InUse`."""
        head, ttl = heads.look(backend.store, definition.name), settings.ttl(definition.as_volume())
        above, patience = head.epoch if head else 0, ttl * PATIENCE
        try:
            return acquire(
                backend.store, definition.name, self.owner(token), self.clock, ttl=ttl, patience=patience, above=above
            )
        except Busy as error:
            raise InUse(str(error)) from error

    def stop(self, session: Session, phase: Phase, reason: str) -> None:
        """Let everybody who uses the files get an I/O error from now on."""
        if self.sessions.change(session, phase=phase, reason=reason) is None:
            return
        _log.error("volume %r is stopped here: %s", session.name, reason)
        self._shut_down(session)

    def _shut_down(self, session: Session) -> None:
        # Not only where it is mounted now: containers keep mounts that a plugin which was restarted does not see.
        file = self.copy(session.key).image
        if loop.is_attached(file):
            with image.opened(file) as root:
                freeze.shut_down(root)

    def change(self, session: Session, **fields: object) -> Session:
        """Change ``fields`` of a session; raises `Fenced` if it is over."""
        changed = self.sessions.change(session, **fields)
        if changed is None or changed.phase == "lost":
            reason = changed.reason if changed else "its use ended meanwhile"
            raise Fenced(f"volume {session.name!r} cannot be used here: {reason}")
        return changed


def _is_set_aside(copy: Copy, base: Base, name: str) -> bool:
    """Set aside what was never published, or may not have been; whether there was anything."""
    if not base.is_usable or base.clean or not _may_be_ahead(copy):
        return False
    kept = copy.set_aside(base.epoch)
    _log.warning("what volume %r had here since epoch %d and never shipped is kept as '%s'", name, base.epoch, kept)
    return True


def _may_be_ahead(copy: Copy) -> bool:
    """Whether the copy has anything that was never published, or cannot say that it has not."""
    from orlop.volumes.bucket.shipping import is_ahead

    try:
        return is_ahead(copy)
    except (OSError, OrlopError) as error:
        _log.warning("'%s' cannot be looked through: %s", copy.image, error)
        return True
