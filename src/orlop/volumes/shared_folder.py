"""A folder on a filesystem that many hosts have mounted: what lies where in it, and how hosts change it at once.

    .orlop-shared/          made by whoever sets it up; a host that misses it has not mounted the filesystem
    .orlop-shared/new/      volumes that are being made
    .orlop-shared/removed/  volumes that are being deleted
    NAME/volume.json        a volume's definition
    NAME/data/              what the volume holds

A volume comes and goes by one rename each, of a folder that has all its parts: on every such filesystem that is done
or not done, and done by one host only.
"""

import errno
import json
import logging
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from orlop.errors import Conflict, Corrupt, InUse, Invalid, NoSpace, OrlopError, Unavailable
from orlop.kernel import mountinfo, probe
from orlop.volumes.definitions import sync
from orlop.volumes.driver import Volume

SIGN = ".orlop-shared"
"""The folder by which every host knows that this is the shared filesystem, and not what lies below its mount point."""
LEFT = 3600.0
"""Seconds after which what a host was making or deleting is no longer thought to be under way."""
_DEFINITION, _DATA = "volume.json", "data"
_PATIENCE = 5.0
"""Seconds until a filesystem that does not answer is given up; Docker waits 30 for a plugin's verb."""
_CUT = 200
"""Characters of a volume's name in that of a folder that is deleted: with the rest it must not be too long."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SharedFolder:
    """The volumes in the folder ``path``; ``step`` is called between two changes, and tests kill the process there."""

    path: Path
    driver: str
    step: Callable[[str], object] = str

    def check(self) -> None:
        """Raises `Unavailable` if this host has not mounted the filesystem, or it does not answer."""
        probe.wait_for(self.path, _PATIENCE)
        if not (self.path / SIGN).is_dir():
            raise Unavailable(
                f"'{self.path}' has no folder '{SIGN}': mount the filesystem that all hosts share; "
                f"if it is mounted, and new, 'mkdir {self.path / SIGN}' says that it is for volumes"
            )

    def read(self, name: str) -> Volume | None:
        """The definition of the volume ``name``; None if there is none. Raises `Corrupt` if it makes no sense."""
        file = self._place(name) / _DEFINITION
        try:
            volume = _parsed(file.read_bytes(), self.driver)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Corrupt(f"'{file}' makes no sense; correct it, or move the folder away") from error
        if volume.name != name:
            raise Corrupt(f"'{file}' is the definition of volume {volume.name!r}; correct it, or move the folder away")
        return volume

    def volumes(self) -> Iterator[Volume]:
        """Every volume that has a definition which makes sense."""
        for name in sorted(entry.name for entry in self.path.iterdir()):
            if name.startswith("."):
                continue
            try:
                volume = self.read(name)
            except Corrupt as error:
                _log.warning("%s", error)
                continue
            if volume is not None:
                yield volume

    def data(self, name: str) -> Path:
        """Where the volume ``name`` has what it holds."""
        return self._place(name) / _DATA

    def make(self, volume: Volume, owner: tuple[int, int], mode: int) -> bool:
        """Make ``volume``, its root owned by ``owner`` (user, group); False if somebody else was quicker.

        Raises `Conflict` if something that is no volume has its place.
        """
        place = self._place(volume.name)
        new = self._new()
        try:
            self.step("make: begun")
            _make_root(new / _DATA, owner, mode)
            self.step("make: root")
            _write(new / _DEFINITION, volume)
            _synced(new)
            self.step("make: written")
            # Fails if the place is taken: a volume's folder is never empty.
            new.rename(place)
        except OSError as error:
            _try_to_delete(new)
            return self._explain(error, place)
        self.step("make: made")
        _synced(self.path)
        return True

    def take_away(self, name: str) -> None:
        """The volume ``name`` has gone, for all hosts; what it held is deleted by `clean`. Raises `InUse`."""
        place, removed = self._place(name), self.path / SIGN / "removed"
        _refuse_mounts(place)
        removed.mkdir(mode=0o700, exist_ok=True)
        with suppress(FileNotFoundError):  # another host was quicker
            os.utime(place)  # the moment of the removal, for `clean`
            self.step("remove: begun")
            place.rename(removed / f"{name[:_CUT]}.{uuid4().hex}")
        self.step("remove: gone")
        _synced(self.path)

    def clean(self, name: str) -> None:
        """Delete what removals of ``name`` have left, and what was left long ago by hosts that were killed."""
        for folder in self._folders("removed"):
            if folder.name.rpartition(".")[0] == name[:_CUT]:
                _delete(folder)
        self.clean_old()

    def clean_old(self) -> None:
        """Delete what hosts that were killed have left long ago; a host may still be at work on what is newer."""
        left = [*self._folders("new"), *self._folders("removed")]
        if not left:
            return
        now = self._now()
        for folder in left:
            with suppress(FileNotFoundError):
                if now - folder.stat().st_mtime > LEFT:
                    _log.info("deleting '%s', which another host has left", folder)
                    _try_to_delete(folder)

    def _place(self, name: str) -> Path:
        """Where the volume ``name`` lies: never elsewhere than in here, whatever it is called."""
        if not name or name.startswith(".") or "/" in name or "\0" in name:
            raise Invalid(f"{name!r} cannot be the name of a folder")
        return self.path / name

    def _new(self) -> Path:
        # One by one: a filesystem that was unmounted just now must not be begun anew below its mount point.
        new = self.path / SIGN / "new"
        new.mkdir(mode=0o700, exist_ok=True)
        new /= uuid4().hex
        new.mkdir(mode=0o700)
        return new

    def _folders(self, kind: str) -> list[Path]:
        try:
            return list((self.path / SIGN / kind).iterdir())
        except FileNotFoundError:
            return []

    def _now(self) -> float:
        """The time by the clock of the filesystem's server: hosts may disagree."""
        sign = self.path / SIGN
        os.utime(sign)
        return sign.stat().st_mtime

    def _explain(self, error: OSError, place: Path) -> bool:
        """Why a new volume was not put in its place: False if it was taken by another one's."""
        if (place / _DEFINITION).exists():
            return False
        if os.path.lexists(place):
            raise Conflict(f"'{place}' is there and is no volume; move it away, or choose another name") from error
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # it has gone again
            return False
        raise error


@contextmanager
def told(path: Path) -> Iterator[None]:
    """What the filesystem at ``path`` refuses, in orlop's words."""
    try:
        yield
    except OSError as error:
        kind = NoSpace if error.errno in (errno.ENOSPC, errno.EDQUOT) else Unavailable
        raise kind(f"'{error.filename or path}': {(error.strerror or str(error)).lower()}") from error


def _make_root(folder: Path, owner: tuple[int, int], mode: int) -> None:
    folder.mkdir()
    if owner != (0, 0):  # servers that take root for nobody refuse any other
        os.chown(folder, *owner)
    folder.chmod(mode)


def _write(file: Path, volume: Volume) -> None:
    content = {
        "volume": volume.name,
        "options": dict(volume.options),
        "labels": dict(volume.labels),
        "created": volume.created,
    }
    with file.open("x", encoding="utf-8") as opened:
        json.dump(content, opened, indent=1)
        opened.flush()
        os.fsync(opened.fileno())


def _parsed(text: bytes, driver: str) -> Volume:
    found = json.loads(text)
    options, labels = _strings(found["options"]), _strings(found["labels"])
    return Volume(str(found["volume"]), driver, options, labels, created=str(found["created"]))


def _strings(mapping: Mapping[object, object]) -> dict[str, str]:
    return {str(key): str(value) for key, value in mapping.items()}


def _synced(folder: Path) -> None:
    try:
        sync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # folders that the server keeps at once have no fsync
            raise


def _refuse_mounts(folder: Path) -> None:
    """Never through a mount: what it shows is not the volume's, even if it is of the same filesystem."""
    inside = [entry.target for entry in mountinfo.ours() if Path(entry.target).is_relative_to(folder)]
    if inside:
        raise InUse(f"'{inside[0]}' is mounted in '{folder}'; unmount it first")


def _delete(folder: Path) -> None:
    """Again is fine, and so is another host that does it at the same time."""
    _refuse_mounts(folder)
    argv = ["rm", "-rf", "--one-file-system", "--", str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode and folder.exists():
        raise Unavailable(f"'{folder}' could not be deleted: {done.stderr.strip()}")


def _try_to_delete(folder: Path) -> None:
    try:
        _delete(folder)
    except OrlopError as error:
        _log.warning("%s", error)
