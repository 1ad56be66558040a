"""A folder of orlop's own as a volume; with ``size=`` and ``fs=host`` the host's filesystem limits it."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orlop.errors import Invalid
from orlop.kernel import btrfs, quota
from orlop.volumes import folders
from orlop.volumes.image import Root

_IMPOSSIBLE = {errno.EPERM, errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOSYS, errno.ESRCH, errno.EINVAL, errno.EXDEV}


def make(folder: Path, root: Root, limit: int | None) -> None:
    """Make ``folder``, complete or not at all; one that is there has its owner, and what its users changed stays.

    Raises `Invalid` where its filesystem cannot limit it to ``limit`` bytes.
    """
    if folder.exists():
        return
    new = folder.with_suffix(".new")
    if not new.exists():
        # A subvolume can be shown as it is at one moment, in no time.
        btrfs.create(new) if btrfs.is_btrfs(folder.parent) else new.mkdir()
    os.chown(new, root.uid, root.gid)
    new.chmod(root.mode)
    if limit is None:
        new.rename(folder)
        return
    with _explained(folder.parent):
        quota.limit(new, limit)
        new.rename(folder)


def grow(folder: Path, size: int) -> None:
    """Let a limited folder take ``size`` bytes, in use or not; raises `Invalid` if that is less than now."""
    with _explained(folder):
        if quota.limit_of(folder) > size:
            raise Invalid("a volume can grow, not shrink; it may hold more than that now")
        quota.limit(folder, size)


def is_limited(folder: Path, size: int) -> bool:
    """Whether the filesystem holds ``folder`` to ``size`` bytes now; it may be mounted without quotas since."""
    told = os.statvfs(folder)
    return told.f_blocks * told.f_frsize <= size


def occupied(folder: Path) -> int:
    """Bytes that it takes: what the filesystem has counted, where it limits it, or else counted now."""
    counted = quota.used(folder)
    return folders.occupied(folder) if counted is None else counted


def delete(folder: Path) -> None:
    """Delete it, and its limit; none is fine."""
    if folder.exists():
        quota.forget(folder)
    folders.delete(folder)


@contextmanager
def _explained(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _IMPOSSIBLE:
            raise
        raise Invalid(
            f"the filesystem of '{place}' cannot limit a folder, which 'fs=host' asks for ({error.strerror}); that "
            "needs project quotas (mount option 'prjquota'; for ext4 also 'tune2fs -O quota,project') and a place that "
            "is in no project itself; or choose fs=xfs or fs=ext4"
        ) from error
