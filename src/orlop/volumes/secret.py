"""Secrets as files: the driver ``secret``. Every option is a file, its value says where the content comes from.

    docker volume create -d orlop -o driver=secret -o db_password=secret:db -o token=env:TOKEN app-secrets

The files exist only while somebody uses the volume, only in memory, and are read-only.
"""

import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from orlop.errors import Invalid
from orlop.kernel.memory import MEMORY, refuse_disk
from orlop.mount import Mount
from orlop.volumes import references
from orlop.volumes.driver import Scope, Volume
from orlop.volumes.options import mode, number

_OWN = ("uid", "gid", "mode")


class SecretDriver:
    """Files in memory, made from references when the first user comes."""

    scope: Scope = "local"

    def __init__(
        self,
        folder: Path,
        in_memory: Collection[int] = MEMORY,
        resolve: references.Resolve = references.resolve,
    ):
        """``folder`` must lie on a filesystem of a type ``in_memory``, such as below ``/run``."""
        self._folder, self._in_memory, self._resolve = folder, in_memory, resolve

    def options(self) -> Mapping[str, str]:
        """See `VolumeDriver.options`."""
        return {
            "*": "a file of that name, with the content of file:PATH, env:NAME (the daemon's) or secret:NAME",
            "uid": "owner of the files (default 0)",
            "gid": "group of the files (default 0)",
            "mode": "permissions of the files, in octal (default 0400)",
        }

    def create(self, volume: Volume) -> None:
        """Check that every option is a file name and a reference."""
        mode(volume, "mode", 0), number(volume, "uid", 0), number(volume, "gid", 0)
        for name, value in _files(volume):
            if "/" in name or name in ("", ".", ".."):
                raise Invalid(f"option {name!r} is no file name")
            references.check(name, value)

    def remove(self, volume: Volume) -> None:
        """Nothing is kept."""
        self.detach(volume)

    def attach(self, volume: Volume) -> Sequence[Mount]:
        """Write the files, in memory, complete before anybody can see them."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        refuse_disk(self._folder, self._in_memory)
        contents = [(name, self._resolve(name, value)) for name, value in _files(volume)]
        place = self._folder / volume.key
        self.detach(volume)
        place.mkdir(mode=0o755)
        for name, content in contents:
            self._write(place / name, content, volume)
        return [Mount.bind(place, "ro", "nosuid", "nodev", "noexec")]

    def detach(self, volume: Volume) -> None:
        """Forget the content."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self._folder / volume.key)

    def _write(self, path: Path, content: bytes, volume: Volume) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            os.fchown(fd, number(volume, "uid", 0), number(volume, "gid", 0))
            os.fchmod(fd, mode(volume, "mode", 0o400))


def _files(volume: Volume) -> list[tuple[str, str]]:
    return [(name, value) for name, value in volume.options.items() if name not in _OWN]
