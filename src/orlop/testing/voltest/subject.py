"""What is tested: how a plugin is started, and which options make which kind of volume with it."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Subject:
    """A volume plugin, as far as a test has to know it.

    In ``command``, ``setup`` and all option values ``{socket}`` stands for where it must listen, ``{state}`` for its
    folder, ``{name}`` for a volume's name and ``{backend}`` for a folder that plays the storage server. Without
    ``command`` there is nothing to start and stop.
    """

    name: str
    command: tuple[str, ...] | None = None
    driver: str = ""
    """What ``docker volume create -d`` calls it; the name, if not given."""
    options: Mapping[str, str] = field(default_factory=dict)
    """With which a plain volume is created."""
    other_options: Mapping[str, str] | None = None
    """Another valid set, which makes a different volume."""
    sized_options: Mapping[str, str] | None = None
    """For a volume that holds 32 MiB, if it can limit size."""
    backend_options: Mapping[str, str] | None = None
    """For a volume whose files are in ``{backend}``, if it can be told."""
    bad_option: str = "no-such-option"
    setup: str = ""
    """A shell script that prepares the machine before every start; again must be fine."""
    disk: str = "{state}"
    """Whose filesystem holds its state."""
    reboot_variable: str = ""
    """The environment variable that tells it another boot id: tests cannot change the kernel's."""

    @property
    def docker_name(self) -> str:
        """The driver's name for Docker."""
        return self.driver or self.name


ORLOP = Subject(
    name="orlop",
    command=(sys.executable, "-m", "orlop", "serve", "--root", "{state}", "--socket", "{socket}"),
    other_options={"size": "64m"},
    sized_options={"size": "32m"},
    backend_options={"type": "none", "device": "{backend}/{name}", "o": "bind"},
    reboot_variable="ORLOP_BOOT_ID",
)

LOCAL = Subject(
    name="local",
    sized_options={"type": "tmpfs", "device": "tmpfs", "o": "size=32m"},
    backend_options={"type": "none", "device": "{backend}/{name}", "o": "bind"},
)
"""Docker's own driver: it is part of dockerd, so only what needs an engine can be tried."""


def rclone(program: Path) -> Subject:
    """``rclone serve docker`` on local folders, with the cache that makes its mounts most like a filesystem."""
    return Subject(
        name="rclone",
        command=(
            *(str(program), "serve", "docker", "--socket-addr", "{socket}", "--base-dir", "{state}/mounts"),
            *("--cache-dir", "{state}/cache", "--config", "{state}/rclone.conf", "--no-spec"),
        ),
        options=_rclone("{state}/remote/{name}"),
        other_options=_rclone("{state}/other/{name}"),
        backend_options=_rclone("{backend}/{name}"),
        # The rclone binary installs no configuration; an empty one keeps it from looking for the user's.
        setup="mkdir -p {state}/mounts {state}/cache {state}/remote; touch {state}/rclone.conf",
    )


def buttervolume(program: Path) -> Subject:
    """The plugin buttervolume, on a btrfs filesystem in a file; it finds its folder at one place only."""
    return Subject(
        name="buttervolume",
        command=("env", "BUTTERVOLUME_SOCKET={socket}", str(program), "run"),
        other_options={"copyonwrite": "false"},
        setup=_BTRFS,
        disk="/var/lib/buttervolume",
    )


def foreign(command: str, options: Mapping[str, str]) -> Subject:
    """Any plugin, by the command line that runs it in the foreground."""
    return Subject(name="plugin", command=tuple(shlex.split(command)), options=options)


def _rclone(folder: str) -> Mapping[str, str]:
    return {"type": "local", "path": folder, "vfs-cache-mode": "full", "vfs-links": "true", "allow-other": "true"}


# If its socket is not there it asks Docker about itself, which as a managed plugin it cannot do: so a file is there.
_BTRFS = """
[ -e {socket} ] || : >{socket}
top=/var/lib/buttervolume
mkdir -p $top /etc/buttervolume
mountpoint -q $top && exit
[ -e {state}/btrfs.img ] || { truncate -s 256M {state}/btrfs.img; mkfs.btrfs -q {state}/btrfs.img; }
mount -o loop {state}/btrfs.img $top
mkdir -p $top/volumes $top/snapshots
"""
