"""Volumes in memory: the driver ``tmpfs``. Their content never touches a disk and goes with the last user."""

from collections.abc import Mapping, Sequence

from orlop.mount import Mount
from orlop.volumes.driver import Scope, Volume
from orlop.volumes.options import capacity, mode, number


class TmpfsDriver:
    """A tmpfs for every volume, made when the first user comes."""

    scope: Scope = "local"

    def options(self) -> Mapping[str, str]:
        """See `VolumeDriver.options`."""
        return {
            "size": "most bytes it may hold, such as 64m (default: half of the memory)",
            "mode": "permissions of its root, in octal (default 1777)",
            "uid": "owner of its root (default 0)",
            "gid": "group of its root (default 0)",
            "nr_inodes": "most files it may hold",
        }

    def create(self, volume: Volume) -> None:
        """Nothing to make: only the options are checked."""
        self.attach(volume)

    def remove(self, volume: Volume) -> None:
        """Nothing is kept."""

    def attach(self, volume: Volume) -> Sequence[Mount]:
        """See `VolumeDriver.attach`."""
        parameters = [
            f"mode={mode(volume, 'mode', 0o1777):o}",
            f"uid={number(volume, 'uid', 0)}",
            f"gid={number(volume, 'gid', 0)}",
        ]
        bytes_ = capacity(volume)
        if bytes_ is not None:
            parameters.append(f"size={bytes_}")
        if "nr_inodes" in volume.options:
            parameters.append(f"nr_inodes={number(volume, 'nr_inodes', 0)}")
        return [Mount("tmpfs", "tmpfs", ("nosuid", "nodev", *parameters))]

    def detach(self, volume: Volume) -> None:
        """Nothing to undo."""
