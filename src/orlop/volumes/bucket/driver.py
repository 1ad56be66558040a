"""The driver ``bucket``: a volume that lives in an object store and works at local speed where it is used.

    docker volume create -d orlop -o driver=bucket -o size=2g data

One host uses a volume at a time: it has a lease (`orlop.volumes.bucket.lease`), a copy of the files in a filesystem of
its own, and ships what changes as snapshots. What a host that has lost the lease still wants to ship is refused
(`orlop.volumes.bucket.heads`), and kept aside on that host. docs/bucket.md tells the rest.
"""

import logging
import os
import secrets
import socket
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from orlop.errors import Busy, Conflict, InUse, NotFound, OrlopError
from orlop.kernel import processes
from orlop.kernel.mounter import KernelMounter
from orlop.kernel.namespaces import companions
from orlop.mount import Mount
from orlop.volumes import image, references
from orlop.volumes.bucket import heads, settings
from orlop.volumes.bucket.backend import Backend
from orlop.volumes.bucket.catalog import Definition
from orlop.volumes.bucket.copy import Base, Copy
from orlop.volumes.bucket.lease import Clock, Fenced, Lease, Owner, acquire, release
from orlop.volumes.bucket.sessions import Session, Sessions
from orlop.volumes.bucket.shipping import VOLUME, fetch, is_ahead, ship
from orlop.volumes.driver import Scope, Volume
from orlop.volumes.options import mode, number
from orlop.volumes.sources import ShadowSource, Source, Users

PATIENCE = 1.5
"""How long to wait for a lease, in times for which one is given: a dead host keeps it for 1.1."""
_log = logging.getLogger(__name__)


class BucketDriver:
    """Volumes in buckets; ``root`` holds a copy of each that was used here, ``run`` (in memory) what is used now."""

    scope: Scope = "global"

    def __init__(
        self,
        root: Path,
        run: Path,
        mounts: Path,
        told: Mapping[str, str],
        resolve: references.Resolve,
        keep: Callable[[], object],
        *,
        boot: str = "",
        clock: Clock | None = None,
        step: Callable[[str], object] = str,
    ):
        """``told`` are the daemon's `settings.SETTINGS`; ``mounts`` is where volumes are mounted.

        ``keep`` sees to it that a keeper runs, which renews leases and ships.
        """
        self._root, self._mounts, self._told, self._resolve, self._keep = root, mounts, told, resolve, keep
        self.sessions, self.clock, self._step = Sessions(run), clock or Clock(), step
        self._boot = boot or processes.boot_id()
        self._backends: dict[tuple[object, ...], Backend] = {}

    def options(self) -> Mapping[str, str]:
        """See `VolumeDriver.options`."""
        return settings.HELP

    def secrets(self) -> Collection[str]:
        """See `orlop.volumes.driver.Secretive`."""
        return settings.SECRETS

    def is_set_up(self) -> bool:
        """See `orlop.volumes.driver.Listed`."""
        return bool(self._told.get(settings.ADDRESS))

    def found(self) -> Iterable[Volume]:
        """See `orlop.volumes.driver.Listed`."""
        return (definition.as_volume() for definition in self.backend({}).catalog.all())

    # verbs

    def create(self, volume: Volume) -> None:
        """See `VolumeDriver.create`: one object in the bucket, whoever creates it too."""
        settings.check(volume)
        backend = self.backend(volume.options)
        backend.prove()
        assert backend.repository  # noqa: S101 - made with the first volume
        backend.catalog.add(volume)

    def remove(self, volume: Volume) -> None:
        """See `VolumeDriver.remove`: only while no host uses it."""
        backend = self.backend(volume.options)
        with suppress(NotFound):
            definition = backend.catalog.get(volume.name)
            lease = self._leased(backend, definition, secrets.token_hex(16))
            try:
                # First of all: whoever creates the name again must not find these files.
                heads.publish(backend.store, heads.claim(backend.store, lease), heads.NOTHING)
                self._step("bucket: emptied")
                backend.catalog.remove(volume.name)
            finally:
                release(backend.store, lease, self.clock)
            _forget(backend, definition)
        self.copy(volume.key).remove()

    def attach(self, volume: Volume) -> Sequence[Mount]:
        """See `VolumeDriver.attach`: the lease first, then the files."""
        session = self.sessions.get(volume.key)
        if session is not None and session.phase == "lost":
            self._abandon(session)
            session = None
        if session is None:
            new = Session(volume.key, volume.name, volume.options, secrets.token_hex(16))
            # Known here before the store knows of it: after a crash the lease is found to be ours.
            session = self.sessions.begin(new)
        if session.phase == "fetching":
            self._bring(session)
        elif session.phase == "leaving":
            self._change(session, phase="using")
        return [image.as_mount(self.copy(volume.key).image)]

    def detach(self, volume: Volume) -> None:
        """See `VolumeDriver.detach`: everything is in the bucket before another host may have it."""
        session = self.sessions.get(volume.key)
        if session is not None and session.phase == "fetching":
            self._let_go(session)
        elif session is not None:
            try:
                self._change(session, phase="leaving")
                self.ship(session, last=True)
                self._step("bucket: shipped")
            except Fenced as error:
                _log.warning("volume %r: %s", session.name, error)
                self._abandon(session)
            else:
                self._let_go(session)

    def resize(self, volume: Volume, mountpoint: Path | None) -> None:
        """See `orlop.volumes.driver.Resizable`."""
        settings.check(volume)
        copy, backend = self.copy(volume.key), self.backend(volume.options)
        definition = backend.catalog.get(volume.name)
        if settings.size(volume) < settings.size(definition.as_volume()):
            raise Conflict(f"volume {volume.name!r} is larger than that; a volume can grow, not shrink")
        if settings.size(volume) > settings.size(definition.as_volume()):
            backend.catalog.resize(volume.name, volume.options["size"])
        if copy.image.exists():
            image.extend(copy.image, settings.size(volume), thin=True)
            image.fill(copy.image, mountpoint)

    def usage(self, volume: Volume, mountpoint: Path | None) -> int:
        """See `orlop.volumes.driver.Measured`: what the copies on this host take."""
        del mountpoint
        folder = self._root / volume.key
        return sum(path.stat().st_blocks * 512 for path in folder.glob("*")) if folder.exists() else 0

    def source(self, volume: Volume, mountpoint: Path, users: Users) -> Source | None:
        """See `orlop.volumes.driver.Stillable`."""
        del mountpoint
        copy = self.copy(volume.key)
        with self.sessions.shipping(volume.key):
            copy.doubt()
        return ShadowSource(copy.image, users)

    def status(self, volume: Volume) -> Mapping[str, object]:
        """See `orlop.volumes.driver.Telling`."""
        session, kept = self.sessions.get(volume.key), self.copy(volume.key).kept()
        told: dict[str, object] = {"LostIfThisHostDies": f"at most the last {settings.sync(volume)} seconds"}
        if session is not None:
            told |= {"Epoch": session.epoch, "Phase": session.phase, "Shipped": session.shipped}
        if session is not None and session.reason:
            told["Trouble"] = session.reason
        if kept:
            told["Kept"] = [str(path) for path in kept]
        return told

    def tend(self) -> None:
        """See `orlop.volumes.driver.Tended`."""
        if self.sessions.all():
            self._keep()

    # for the keeper

    def backend(self, options: Mapping[str, str]) -> Backend:
        """The bucket that a volume's options, or the daemon's settings, name."""
        place = settings.place(options, self._told)
        name = place.address, place.password, *sorted(place.settings.items())
        if name not in self._backends:
            self._backends[name] = Backend(place, self._resolve)
        return self._backends[name]

    def copy(self, key: str) -> Copy:
        """This host's copy of the volume whose storage is ``key``."""
        return Copy(self._root / key)

    def owner(self, token: str) -> Owner:
        """This host, in one use of a volume."""
        return Owner(socket.gethostname(), self._boot, token)

    def users(self, key: str) -> Sequence[int]:
        """The processes that use a volume now."""
        target = self._mounts / key
        return companions(KernelMounter().holders([target]).get(target, ()))

    def ship(self, session: Session, *, last: bool = False) -> None:
        """Bring what has changed into the bucket; raises `Fenced` if another host has the volume."""
        backend = self.backend(session.options)
        definition = backend.catalog.get(session.name)
        with self.sessions.shipping(session.key):
            head = heads.look(backend.store, session.name)
            if head is None or (head.epoch, head.session) != (session.epoch, session.token):
                raise Fenced(f"another host has volume {session.name!r} since epoch {session.epoch} is over")

            def publish(snapshot: str) -> None:
                self._step("bucket: saved")
                heads.publish(backend.store, head, snapshot)
                self._step("bucket: published")

            def users() -> Sequence[int]:
                return self.users(session.key)

            copy = self.copy(session.key)
            base = ship(backend.repository, definition, copy, session.epoch, users, publish)
            if last:
                copy.know(replace(base, clean=True))
            self._change(session, shipped=self.clock.wall())

    def is_mounted(self, key: str) -> bool:
        """Whether the copy is mounted where its users see it."""
        return os.path.ismount(self._mounts / key)

    # parts

    def _bring(self, session: Session) -> None:
        try:
            backend = self.backend(session.options)
            definition = backend.catalog.get(session.name)
            lease = self._leased(backend, definition, session.token)
        except BaseException:
            self.sessions.end(session)
            raise
        try:
            self._step("bucket: leased")
            session = self._change(session, epoch=lease.epoch, lost_at=lease.lost_at)
            self._keep()
            head = heads.claim(backend.store, lease)
            self._step("bucket: claimed")
            self._fill(backend, definition, session, head.snapshot)
            self._change(session, phase="using", shipped=self.clock.wall())
        except BaseException:
            self._let_go(session)
            raise

    def _fill(self, backend: Backend, definition: Definition, session: Session, snapshot: str) -> None:
        """Let the copy go on from ``snapshot``, unless it does already."""
        volume, copy = definition.as_volume(), self.copy(session.key)
        base = copy.base
        if base is not None and base.goes_on_from(definition.id, snapshot):
            _log.info("volume %r goes on from what is here", session.name)
            copy.know(base.published(snapshot))
        else:
            self._replace(copy, base, definition)
            root = image.Root(number(volume, "uid", 0), number(volume, "gid", 0), mode(volume, "mode", 0o755))
            copy.begin(Base(definition.id, snapshot), settings.size(volume), root)
            self._step("bucket: begun")
            fetch(backend.repository, definition, snapshot, copy)
        copy.grow(settings.size(volume))

    def _replace(self, copy: Copy, base: Base | None, definition: Definition) -> None:
        """Whatever is in the copy is not lost if it never became part of the volume."""
        if base is None or not base.complete:
            return
        if not base.clean and _may_be_ahead(copy):
            kept = copy.set_aside(base.epoch)
            _log.warning("what volume %r had here since epoch %d is kept as '%s'", definition.name, base.epoch, kept)
        elif base.id != definition.id:
            copy.remove()

    def _abandon(self, session: Session) -> None:
        """Another host has it: keep what was not shipped."""
        with self.sessions.shipping(session.key):
            copy = self.copy(session.key)
            base = copy.base
            if base is not None and base.complete and not base.clean and _may_be_ahead(copy):
                kept = copy.set_aside(session.epoch)
                _log.warning("what volume %r had here and never shipped is kept as '%s'", session.name, kept)
            elif base is not None:
                copy.know(replace(base, clean=True))
            self.sessions.end(session)

    def _let_go(self, session: Session) -> None:
        backend = self.backend(session.options)
        # First: a keeper that still renews must not take what is released.
        self.sessions.end(session)
        try:
            lease = acquire(backend.store, session.name, self.owner(session.token), self.clock)
            release(backend.store, lease, self.clock)
        except OrlopError as error:
            _log.warning("the lease of volume %r ends by itself: %s", session.name, error)

    def _leased(self, backend: Backend, definition: Definition, token: str) -> Lease:
        head, ttl = heads.look(backend.store, definition.name), settings.ttl(definition.as_volume())
        above, patience = head.epoch if head else 0, ttl * PATIENCE
        try:
            return acquire(
                backend.store, definition.name, self.owner(token), self.clock, ttl=ttl, patience=patience, above=above
            )
        except Busy as error:
            raise InUse(str(error)) from error

    def _change(self, session: Session, **fields: object) -> Session:
        changed = self.sessions.change(session, **fields)
        if changed is None or changed.phase == "lost":
            reason = changed.reason if changed else "its use ended meanwhile"
            raise Fenced(f"volume {session.name!r} cannot be used here: {reason}")
        return changed


def _forget(backend: Backend, definition: Definition) -> None:
    """The snapshots of a volume that is gone; what only they needed is deleted by a prune."""
    for name, file in backend.repository.snapshots().items():
        if VOLUME + definition.id in (file.tags or []):
            backend.repository.forget(name)


def _may_be_ahead(copy: Copy) -> bool:
    """Whether the copy has anything that was never published, or cannot say that it has not."""
    try:
        return is_ahead(copy)
    except (OSError, OrlopError) as error:
        _log.warning("'%s' cannot be looked through: %s", copy.image, error)
        return True
