"""One bucket, as the driver uses it: who is in it, who may write, and the repository that has the files.

volumes/NAME      what the volume was created with
leases/NAME       who uses it
heads/NAME        which snapshot it is, and of which epoch
repository/       the snapshots of all volumes, in restic's format
"""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from orlop.objects.probe import require_single_winner
from orlop.objects.store import ObjectStore
from orlop.objects.wrappers import Prefixed
from orlop.volumes import references, repositories
from orlop.volumes.bucket.catalog import Catalog
from orlop.volumes.repositories import Place

if TYPE_CHECKING:
    from orlop.snapshots.repository import Repository

VOLUME = "orlop.bucket="
"""The tag of a volume's snapshots, before its id."""


class Backend:
    """The bucket at ``place``; nothing is asked before it is needed."""

    def __init__(self, place: Place, resolve: references.Resolve, cache: Path | None):
        """``resolve`` looks up the password and the keys; ``cache`` is the repository's folder on this host."""
        self._cache = cache
        self.store: ObjectStore = repositories.store(place, resolve)
        self.catalog = Catalog(self.store)
        self._password = repositories.read_password(place, resolve)
        self._is_proven = False

    def prove(self) -> None:
        """Try out, once, that of several who write on a condition one wins; raises `Unavailable` otherwise."""
        if not self._is_proven:
            require_single_winner(self.store)
            self._is_proven = True

    @cached_property
    def repository(self) -> "Repository":
        """The repository, which the first volume makes."""
        return repositories.made_in(Prefixed(self.store, "repository/"), self._password, self._cache)
