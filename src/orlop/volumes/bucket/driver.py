"""The driver ``bucket``: a volume that lives in an object store and works at local speed where it is used.

    docker volume create -d orlop -o driver=bucket -o size=2g data

One host uses a volume at a time: it has a lease (`orlop.volumes.bucket.lease`), a copy of the files in a filesystem of
its own, and ships what changes as snapshots. What a host that has lost the lease still wants to ship is refused
(`orlop.volumes.bucket.heads`), and kept aside on that host. docs/bucket.md tells the rest.
"""

import logging
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from orlop.errors import Busy, Conflict, NotFound
from orlop.mount import Mount
from orlop.volumes import image
from orlop.volumes.bucket import heads, settings
from orlop.volumes.bucket.backend import VOLUME, Backend
from orlop.volumes.bucket.catalog import Definition
from orlop.volumes.bucket.lease import Fenced, release
from orlop.volumes.bucket.sessions import Session
from orlop.volumes.bucket.use import Broken, Use
from orlop.volumes.driver import Scope, Volume
from orlop.volumes.sources import ShadowSource, Source, Users

_log = logging.getLogger(__name__)


class BucketDriver:
    """Volumes in buckets, as far as this host uses them."""

    scope: Scope = "global"

    def __init__(self, use: Use, keep: Callable[[], object]):
        """``keep`` sees to it that a keeper runs, which renews leases and ships."""
        self.use, self._keep = use, keep

    def options(self) -> Mapping[str, str]:
        """See `VolumeDriver.options`."""
        return settings.HELP

    def secrets(self) -> Collection[str]:
        """See `orlop.volumes.driver.Secretive`."""
        return settings.SECRETS

    def is_set_up(self) -> bool:
        """See `orlop.volumes.driver.Listed`."""
        return bool(self.use.told.get(settings.ADDRESS))

    def lists(self, volume: Volume) -> bool:
        """See `orlop.volumes.driver.Listed`: not one that is in a bucket of its own."""
        return "store" not in volume.options

    def found(self) -> Iterable[Volume]:
        """See `orlop.volumes.driver.Listed`."""
        return (definition.as_volume() for definition in self.use.backend({}).catalog.all())

    # verbs

    def create(self, volume: Volume) -> None:
        """See `VolumeDriver.create`: one object in the bucket, whoever creates it too."""
        settings.check(volume)
        backend = self.use.backend(volume.options)
        backend.prove()
        assert backend.repository  # noqa: S101 - made with the first volume
        backend.catalog.add(volume)

    def remove(self, volume: Volume) -> None:
        """See `VolumeDriver.remove`: only while no host uses it."""
        backend = self.use.backend(volume.options)
        with suppress(NotFound):
            definition = backend.catalog.get(volume.name)
            lease = self.use.leased(backend, definition, secrets.token_hex(16))
            try:
                # First of all: whoever creates the name again must not find these files.
                heads.publish(backend.store, heads.claim(backend.store, lease), heads.NOTHING)
                self.use.step("bucket: emptied")
                backend.catalog.remove(volume.name)
            finally:
                release(backend.store, lease, self.use.clock)
            _forget(backend, definition)
        self.use.copy(volume.key).remove()

    def attach(self, volume: Volume) -> Sequence[Mount]:
        """See `VolumeDriver.attach`: the lease first, then the files."""
        session = self.use.sessions.get(volume.key)
        if session is not None and not self.use.goes_on(session):
            self.use.give_up(session)
            session = None
        if session is not None and session.phase == "broken":
            self.use.let_go(session)
            session = None
        if session is None:
            new = Session(volume.key, volume.name, volume.options, secrets.token_hex(16))
            # Known here before the store knows of it: after a crash the lease is found to be ours.
            session = self.use.sessions.begin(new)
        if session.phase == "fetching":
            self.use.bring(session, self._keep)
        elif session.phase == "leaving":
            self.use.change(session, phase="using")
        return [image.as_mount(self.use.copy(volume.key).image)]

    def detach(self, volume: Volume) -> None:
        """See `VolumeDriver.detach`: everything is in the bucket before another host may have it."""
        session = self.use.sessions.get(volume.key)
        if session is not None and session.phase in ("fetching", "broken"):
            self.use.let_go(session)
        elif session is not None:
            try:
                session = self.use.change(session, phase="leaving")
                if not self.use.is_untouched(session):
                    self.tend()
                    self.use.complete(session)
                    self.use.ship(session, last=True)
                    self.use.step("bucket: shipped")
            except Broken:
                self.use.let_go(session)
            except Fenced as error:
                _log.warning("volume %r: %s", session.name, error)
                self.use.abandon(session)
            else:
                self.use.let_go(session)

    def leave(self, volume: Volume) -> None:
        """See `orlop.volumes.driver.Copying`."""
        self.use.leave(volume)

    def resize(self, volume: Volume, mountpoint: Path | None) -> None:
        """See `orlop.volumes.driver.Resizable`."""
        settings.check(volume)
        copy, backend = self.use.copy(volume.key), self.use.backend(volume.options)
        definition = backend.catalog.get(volume.name)
        if settings.size(volume) < settings.size(definition.as_volume()):
            raise Conflict(f"volume {volume.name!r} is larger than that; a volume can grow, not shrink")
        if settings.size(volume) > settings.size(definition.as_volume()):
            backend.catalog.resize(volume.name, volume.options["size"])
        if copy.image.exists():
            image.extend(copy.image, settings.size(volume), thin=True)
            image.fill(copy.image, mountpoint)

    def image(self, volume: Volume) -> Path:
        """See `orlop.volumes.driver.Imaged`."""
        return self.use.copy(volume.key).image

    def usage(self, volume: Volume, mountpoint: Path | None) -> int:
        """See `orlop.volumes.driver.Measured`: what the copies on this host take."""
        del mountpoint
        return sum(path.stat().st_blocks * 512 for path in self.use.copy(volume.key).folder.glob("*"))

    def source(self, volume: Volume, mountpoint: Path, users: Users) -> Source | None:
        """See `orlop.volumes.driver.Stillable`."""
        del mountpoint
        copy = self.use.copy(volume.key)
        if (fetched := self._fetched(volume)) is not None:
            raise Busy(f"{fetched} of the files of volume {volume.name!r} are here so far; try again when all are")
        with self.use.sessions.shipping(volume.key):
            copy.doubt()
        return ShadowSource(copy.image, users)

    def status(self, volume: Volume) -> Mapping[str, object]:
        """See `orlop.volumes.driver.Telling`."""
        session, kept = self.use.sessions.get(volume.key), self.use.copy(volume.key).kept()
        told: dict[str, object] = {"LostIfThisHostDies": f"at most the last {settings.sync(volume)} seconds"}
        if session is not None:
            told |= {"Epoch": session.epoch, "Phase": session.phase, "Shipped": session.shipped}
        if (fetched := self._fetched(volume)) is not None:
            told["Fetched"] = fetched
        if session is not None and session.reason:
            told["Trouble"] = session.reason
        if kept:
            told["Kept"] = [str(path) for path in kept]
        return told

    def _fetched(self, volume: Volume) -> str | None:
        """How much of a volume that is in use is here; None if that is all, or nothing is known."""
        session, base = self.use.sessions.get(volume.key), self.use.copy(volume.key).base
        if session is None or base is None or not base.lazy:
            return None
        return f"{min(session.fetched * 100 // base.lazy, 99)} %"

    def tend(self) -> None:
        """See `orlop.volumes.driver.Tended`."""
        if not self.use.sessions.is_kept and self.use.sessions.all():
            self._keep()


def _forget(backend: Backend, definition: Definition) -> None:
    """The snapshots of a volume that is gone; what only they needed is deleted by a prune."""
    for name, file in backend.repository.snapshots().items():
        if VOLUME + definition.id in (file.tags or []):
            backend.repository.forget(name)
