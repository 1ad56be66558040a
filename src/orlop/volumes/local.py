"""Volumes on this host: the driver ``local``, in five forms that the options choose.

(none)                  a folder of orlop's own
size=10g [fs= thin=]    a filesystem of its own in a file: the limit holds, df is honest, it can grow
size=10g fs=host        a folder of orlop's own that the host's filesystem limits, where it has project quotas
mountpoint=/srv/data    a folder of yours, which outlives ``volume rm`` (as Local Persist has it)
type= device= o=        whatever mount(8) can mount, as Docker's local driver has it
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from orlop.errors import Invalid, Unavailable
from orlop.kernel import btrfs, idmap
from orlop.mount import Mount
from orlop.volumes import image, network, plain, references, sharing, sources
from orlop.volumes.driver import DATA, Scope, Volume
from orlop.volumes.options import capacity, flag, mode, number
from orlop.volumes.ownership import Owner, mapped
from orlop.volumes.sources import ShadowSource, Source, SubvolumeSource, Users

_DOCKER = {"device": ("type",), "type": ("device",), "o": ("device", "type")}
"""What each of Docker's own options needs beside it (moby, volume/local)."""
_HOST = "host"
_log = logging.getLogger(__name__)
_PASSWORDS = ("password", "pass", "password2")


class LocalDriver:
    """Folders and files below ``root``, one folder for each volume."""

    scope: Scope = "local"

    def __init__(
        self,
        root: Path,
        resolve: references.Resolve = references.resolve,
        can_map: Callable[[Path], bool] = idmap.works_on,
    ):
        """``root`` holds a folder for each volume, named by its key; ``resolve`` finds the passwords in ``o``.

        ``can_map`` says whether the kernel can show other owners for what a folder is on.
        """
        self._root, self._resolve, self._can_map = root, resolve, can_map

    def options(self) -> Mapping[str, str]:
        """See `VolumeDriver.options`."""
        return {
            "size": "most bytes it may hold, such as 10g: the volume becomes a filesystem of its own",
            "fs": "with size: xfs or ext4 (default: xfs from 300 MiB up); host for a folder limited by a project quota",
            "thin": "with size: true to reserve no space on the host (default false)",
            "uid": "owner of its root (default 0); with mountpoint: whom the files of its owner are shown to belong to",
            "gid": "group of its root (default 0); with mountpoint: likewise",
            "filemode": "with mountpoint: permissions of every file, in octal (default: as stored)",
            "dirmode": "with mountpoint: permissions of every folder, in octal (default: as stored)",
            "mode": "permissions of its root, in octal (default 0755)",
            "mountpoint": "a folder of yours to use instead, made if missing and kept by rm",
            "type": "type of filesystem, as for mount -t",
            "device": "what to mount, as for mount",
            "o": "mount options, as for mount -o; a password is given as password=secret:NAME, file:PATH or env:NAME",
        }

    def create(self, volume: Volume) -> None:
        """See `VolumeDriver.create`."""
        _check(volume)
        if "device" in volume.options:
            return
        if "mountpoint" in volume.options:
            Path(volume.options["mountpoint"]).mkdir(parents=True, exist_ok=True)
            return
        folder = self._root / volume.key
        folder.mkdir(mode=0o700, exist_ok=True)
        size = _size_of_image(volume)
        if size is None:
            plain.make(folder / DATA, _root(volume), capacity(volume))
        else:
            fs = image.choose(volume.options.get("fs"), size)
            image.make(folder / "image", fs, size, _root(volume), thin=flag(volume, "thin"))

    def remove(self, volume: Volume) -> None:
        """See `VolumeDriver.remove`. A folder of yours, and what was mounted, is not touched."""
        folder = self._root / volume.key
        SubvolumeSource(folder / DATA, list).drop()
        for name in (DATA, f"{DATA}.new"):
            plain.delete(folder / name)
        for name in ("image", "image.new", "image.grow", "image.cloned", "image.shared"):
            (folder / name).unlink(missing_ok=True)

    def attach(self, volume: Volume) -> Sequence[Mount]:
        """See `VolumeDriver.attach`."""
        options, folder = volume.options, self._root / volume.key
        if "device" in options:
            return [_as_docker(volume, self._resolve)]
        if "mountpoint" in options:
            return self._yours(volume)
        if _size_of_image(volume) is None:
            for problem in self.status(volume).values():
                _log.warning("volume %r: %s", volume.name, problem)
            return [Mount.bind(folder / DATA)]
        image.fill(folder / "image", None)
        if not flag(volume, "thin"):
            sharing.attach(folder / "image")
        return [image.as_mount(folder / "image")]

    def detach(self, volume: Volume) -> None:
        """Nothing to undo: loop devices free themselves."""

    def resize(self, volume: Volume, mountpoint: Path | None) -> None:
        """See `orlop.volumes.driver.Resizable`: a ``size=`` volume grows, also while it is mounted."""
        size = capacity(volume)
        if size is None:
            return
        if _is_limited(volume):
            plain.grow(self._root / volume.key / DATA, size)
            return
        file = self._root / volume.key / "image"
        if not file.exists():
            raise Invalid(f"volume {volume.name!r} has no size limit that could change; create a new one with size=")
        if file.stat().st_size > size:
            raise Invalid(f"volume {volume.name!r} is larger than that; a volume can grow, not shrink")
        image.extend(file, size, thin=flag(volume, "thin"))
        try:
            image.fill(file, mountpoint)
        except Unavailable as error:
            # The kernel lets ext4 grow while mounted only with CAP_SYS_RESOURCE; unmounted it always can.
            _log.warning("volume %r grows when it is mounted next: %s", volume.name, error)

    def is_in_place(self, volume: Volume) -> bool:
        """See `orlop.volumes.driver.InPlace`: folders of orlop's own."""
        return {"device", "mountpoint"}.isdisjoint(volume.options) and _size_of_image(volume) is None

    def source(self, volume: Volume, mountpoint: Path, users: Users) -> Source | None:
        """See `orlop.volumes.driver.Stillable`."""
        folder = self._root / volume.key
        if not {"device", "mountpoint"}.isdisjoint(volume.options):
            return None
        if (folder / "image").exists():
            if image.has_room_beside(folder / "image"):
                return ShadowSource(folder / "image", users)
            return sources.frozen(mountpoint, users)
        return SubvolumeSource(folder / DATA, users) if btrfs.is_subvolume(folder / DATA) else None

    def can_clone(self, source: Volume, new: Volume) -> bool:
        """See `orlop.volumes.driver.Cloning`: folders on btrfs, and images where files can share blocks."""
        _check(new)
        forms = {"device", "mountpoint"}
        if not forms.isdisjoint(source.options) or not forms.isdisjoint(new.options):
            return False
        folder, size = self._root / source.key, _size_of_image(new)
        if size is None or not (folder / "image").exists():
            is_plain = size is None and not _is_limited(new)
            return is_plain and (folder / DATA).is_dir() and btrfs.is_subvolume(folder / DATA)
        fs, is_thin = image.choose(new.options.get("fs"), size), flag(source, "thin") and flag(new, "thin")
        return sharing.is_possible(folder / "image", fs, size, is_thin=is_thin)

    def clone(self, source: Volume, new: Volume, users: Users) -> str:
        """See `orlop.volumes.driver.Cloning`."""
        here, there, size = self._root / source.key, self._root / new.key, _size_of_image(new)
        if size is None:
            how = SubvolumeSource(here / DATA, users).snapshot(there / f"{DATA}.new", read_only=False)
            (there / f"{DATA}.new").rename(there / DATA)
            return how
        image.clone(here / "image", there / "image", size, thin=flag(new, "thin"))
        if not (flag(source, "thin") and flag(new, "thin")):
            for folder in (here, there):
                sharing.remember(folder / "image")
            # When the clone has blocks of its own, the original has too.
            sharing.begin(there / "image", here / "image")
        return "reflink"

    def image(self, volume: Volume) -> Path:
        """See `orlop.volumes.driver.Imaged`."""
        return self._root / volume.key / "image"

    def status(self, volume: Volume) -> Mapping[str, str]:
        """See `orlop.volumes.driver.Telling`: that the host's filesystem no longer limits a volume as it should."""
        size, folder = capacity(volume) if _is_limited(volume) else None, self._root / volume.key / DATA
        if size is None or not folder.exists() or plain.is_limited(folder, size):
            return {}
        return {
            "Degraded": f"nothing limits it: mount the filesystem of '{folder}' with project quotas (prjquota) again"
        }

    def usage(self, volume: Volume, mountpoint: Path | None) -> int:
        """See `orlop.volumes.driver.Measured`. What was mounted from elsewhere takes nothing here."""
        del mountpoint  # blocks are counted where they are, mounted or not
        if "device" in volume.options:
            return 0
        if _size_of_image(volume) is not None:
            return (self._root / volume.key / "image").stat().st_blocks * 512
        return plain.occupied(Path(volume.options.get("mountpoint", self._root / volume.key / DATA)))

    def _yours(self, volume: Volume) -> Sequence[Mount]:
        folder, owner = Path(volume.options["mountpoint"]), Owner.asked(volume)
        try:
            stored = folder.stat()
        except OSError as error:
            raise Unavailable(f"'{folder}', the mountpoint of volume {volume.name!r}: {error.strerror}") from error
        by_kernel = owner != Owner() and self._can_map(folder)
        return mapped(Mount.bind(folder), (stored.st_uid, stored.st_gid), owner, by_kernel=by_kernel)


def _is_limited(volume: Volume) -> bool:
    """Whether the host's filesystem limits it."""
    return volume.options.get("fs") == _HOST


def _size_of_image(volume: Volume) -> int | None:
    """The size of its own filesystem in a file, in bytes; None if it has none. Raises `Invalid` for what is no size."""
    size = capacity(volume)
    return None if _is_limited(volume) else size


def _check(volume: Volume) -> None:
    """Raises `Invalid` for options that contradict each other or themselves."""
    options = volume.options
    _check_form(options)
    Owner.asked(volume), mode(volume, "mode", 0), flag(volume, "thin")
    size = _size_of_image(volume)
    if size is not None:
        image.choose(options.get("fs"), size)
    elif "thin" in options:
        raise Invalid("option 'thin' does not go with 'fs=host', which reserves nothing")
    if "mountpoint" in options:
        _check_path(options["mountpoint"])
    for word in options.get("o", "").split(","):
        key, _, value = word.partition("=")
        if key in _PASSWORDS:
            references.check(key, value)


def _check_form(options: Mapping[str, str]) -> None:
    for other in (other for name, needed in _DOCKER.items() if name in options for other in needed):
        if other not in options:
            raise Invalid(f'missing required option: "{other}"')
    forms = [name for name in ("size", "mountpoint", "device") if name in options]
    if len(forms) > 1:
        raise Invalid(f"options {forms[0]!r} and {forms[1]!r} exclude each other")
    if not {"fs", "thin"}.isdisjoint(options) and "size" not in options:
        raise Invalid("options 'fs' and 'thin' need 'size'")
    if not {"uid", "gid", "mode"}.isdisjoint(options) and "device" in options:
        raise Invalid("options 'uid', 'gid' and 'mode' do not go with 'device'; 'o' says what its filesystem can")
    if "mode" in options and "mountpoint" in options:
        raise Invalid("option 'mode' does not go with 'mountpoint'; 'dirmode' shows other permissions")
    if not {"filemode", "dirmode"}.isdisjoint(options) and "mountpoint" not in options:
        raise Invalid("options 'filemode' and 'dirmode' need 'mountpoint'; elsewhere files keep what they are given")


def _check_path(text: str) -> None:
    if not text.startswith("/") or ".." in Path(text).parts or Path(text) == Path("/"):
        raise Invalid(f"option 'mountpoint' is {text!r}; it must be an absolute path without '..'")


def _as_docker(volume: Volume, resolve: references.Resolve) -> Mount:
    options = volume.options
    words = [word for word in options.get("o", "").split(",") if word]
    if {"bind", "rbind"} & set(words) and not Path(options["device"]).exists():
        raise Unavailable(f"'{options['device']}', the device of volume {volume.name!r}: no such file or directory")
    secrets = [_secret(word, resolve) for word in words if _is_secret(word)]
    words = [word for word in words if not _is_secret(word)]
    return Mount(
        options["type"], options["device"], network.complete(options["type"], options["device"], words), tuple(secrets)
    )


def _is_secret(word: str) -> bool:
    return word.partition("=")[0] in _PASSWORDS


def _secret(word: str, resolve: references.Resolve) -> tuple[str, str]:
    key, _, value = word.partition("=")
    return key, resolve(key, value).decode(errors="surrogateescape").rstrip()


def _root(volume: Volume) -> image.Root:
    return image.Root(number(volume, "uid", 0), number(volume, "gid", 0), mode(volume, "mode", 0o755))
