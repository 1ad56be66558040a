"""Folders of a filesystem that all hosts have mounted (NFS, EFS, GlusterFS, CephFS, ...): the driver ``shared``.

    docker volume create -d orlop -o driver=shared sharedvol1

The setting ORLOP_SHARED of the daemon (or of ``docker plugin set``) says where it is mounted. Every host that has it
sees the same volumes. On AWS that is what Cloudstor called ``backing=shared``. docs/shared.md tells the rest.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from orlop.errors import Busy, NotFound, Unavailable
from orlop.mount import Mount
from orlop.volumes import ownership
from orlop.volumes import shared_options as options
from orlop.volumes.driver import Scope, Volume
from orlop.volumes.shared_folder import SharedFolder, told

SETTING = "ORLOP_SHARED"
_NAME = "shared"
_ROUNDS = 3
"""How often a volume may come or go between looking and making."""
_log = logging.getLogger(__name__)


class SharedDriver:
    """Volumes in one folder of a filesystem that is not orlop's to mount."""

    scope: Scope = "global"

    def __init__(self, folder: str, step: Callable[[str], object] = str):
        """``folder`` is what the setting says, looked at when a verb needs it; empty: not set up."""
        self._folder = SharedFolder(Path(folder), _NAME, step) if folder else None

    def is_set_up(self) -> bool:
        """See `orlop.volumes.driver.Listed`."""
        return self._folder is not None

    def options(self) -> Mapping[str, str]:
        """See `VolumeDriver.options`."""
        return options.HELP

    def create(self, volume: Volume) -> None:
        """See `VolumeDriver.create`: one folder, whoever else creates it meanwhile."""
        options.check(volume)
        folder = self._checked()
        with told(folder.path):
            for _ in range(_ROUNDS):
                there = folder.read(volume.name)
                if there is not None:
                    options.refuse_difference(there, volume, folder.path)
                    return
                if folder.make(volume, options.owner(volume), options.permissions(volume)):
                    folder.clean_old()
                    return
        raise Busy(f"volume {volume.name!r} comes and goes in '{folder.path}'; try again")

    def remove(self, volume: Volume) -> None:
        """See `VolumeDriver.remove`. It has gone for all hosts at once, before anything is deleted."""
        folder = self._checked()
        with told(folder.path):
            there = folder.read(volume.name)
            if there is not None and options.difference(there, volume):
                _log.warning("'%s/%s' is kept: the volume there has other options", folder.path, volume.name)
                return
            if there is not None:
                folder.take_away(volume.name)
            folder.clean(volume.name)

    def attach(self, volume: Volume) -> Sequence[Mount]:
        """See `VolumeDriver.attach`."""
        folder = self._checked()
        with told(folder.path):
            if folder.read(volume.name) is None:
                raise NotFound(f"volume {volume.name!r} has gone from '{folder.path}': another host removed it")
            return ownership.shown(Mount.bind(folder.data(volume.name)), options.shown_as(volume))

    def detach(self, volume: Volume) -> None:
        """Nothing to undo."""

    def lists(self, volume: Volume) -> bool:
        """See `orlop.volumes.driver.Listed`: there is one backend."""
        del volume
        return True

    def found(self) -> Iterable[Volume]:
        """See `orlop.volumes.driver.Listed`."""
        if self._folder is not None:
            folder = self._checked()
            with told(folder.path):
                yield from folder.volumes()

    def _checked(self) -> SharedFolder:
        """The folder, which this host has, and which answers. Raises `Unavailable`, saying what to do."""
        if self._folder is None:
            raise Unavailable(
                f"{SETTING} is not set for the daemon; driver {_NAME!r} needs it: "
                "the folder at which every host has mounted the same filesystem"
            )
        if not self._folder.path.is_absolute():
            raise Unavailable(f"setting {SETTING} is '{self._folder.path}'; it must be an absolute path")
        self._folder.check()
        return self._folder
