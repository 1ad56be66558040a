"""The files that make orlop a part of a host: units for systemd, a line for Podman.

Nothing here touches the disk before `apply`: `files` says what there should be, `changes` what is missing.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SOCKET = "/run/docker/plugins/orlop.sock"
UNITS = ("orlop.socket", "orlop.service")
_SYSTEM = Path("etc/systemd/system")
_LINKS = {
    _SYSTEM / "sockets.target.wants/orlop.socket": "../orlop.socket",
    _SYSTEM / "multi-user.target.wants/orlop.service": "../orlop.service",
}
"""What ``systemctl enable`` would make; it works without systemd, and below a prefix."""

_SOCKET_UNIT = """\
# Written by "orlop install"; "orlop uninstall" takes it away. Changes belong into "systemctl edit orlop.socket".
[Unit]
Description=Where container engines find orlop's volumes
# An engine that starts first waits half a minute for every volume that it cannot ask about.
Before=docker.service podman.service podman-restart.service

[Socket]
ListenStream={socket}
# Whoever reaches the socket can mount.
SocketMode=0600
DirectoryMode=0755
RemoveOnStop=yes

[Install]
WantedBy=sockets.target
"""
_SERVICE_UNIT = """\
# Written by "orlop install"; "orlop uninstall" takes it away. Changes belong into "systemctl edit orlop.service",
# settings (such as ORLOP_TRASH=7d or DEBUG=1) into /etc/default/orlop.
[Unit]
Description=orlop, volumes for containers
# Started before the engines, and so stopped after them: while containers end, their volumes are still there.
Before=docker.service containerd.service podman.service podman-restart.service
After=orlop.socket
Requires=orlop.socket
RequiresMountsFor={root}
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={command}
EnvironmentFile=-/etc/default/orlop
Restart=always
RestartSec=200ms
# Programs that serve a mount (FUSE), and the keeper of bucket volumes, outlive the daemon: its restart must not touch
# a container's files.
KillMode=process
TasksMax=infinity
LimitNOFILE=65536
OOMScoreAdjust=-500

# Mounts have to be made where the engines see them: in the host's mount namespace. Most of systemd's sandbox would
# give the daemon a namespace of its own, and containers empty folders instead of their volumes. So none of:
# Protect*=, Private*=, ProcSubset=, ReadOnlyPaths= and its kin, BindPaths=, TemporaryFileSystem=, RootDirectory=,
# DynamicUser=, MountFlags=. Neither RestrictSUIDSGID=: an imported volume keeps its files' modes.
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
SystemCallArchitectures=native
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
CapabilityBoundingSet={capabilities}

[Install]
WantedBy=multi-user.target
"""
CAPABILITIES = (
    # mounts, their immutable mount points, and growing a filesystem in use
    *("CAP_SYS_ADMIN", "CAP_LINUX_IMMUTABLE", "CAP_SYS_RESOURCE"),
    # seeing who uses a volume, in every namespace, and healing it there
    *("CAP_SYS_PTRACE", "CAP_SYS_CHROOT"),
    # files of all owners, kept as they are
    *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_MKNOD", "CAP_SETFCAP"),
    # FUSE programs: ending them, other users', reserved ports
    *("CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_NET_BIND_SERVICE"),
)
_PODMAN = """\
# Written by "orlop install": podman volume create --driver orlop NAME
[engine]
# Podman's own limit of 5 seconds is too short for a filesystem that is made on a slow disk.
volume_plugin_timeout = 60

[engine.volume_plugins]
orlop = "{socket}"
"""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing to do to a host: ``write`` the text, make a ``link`` to it, or ``remove`` what is at ``path``."""

    verb: Literal["write", "link", "remove"]
    path: Path
    content: str = ""


def files(python: str, root: Path) -> Mapping[Path, str]:
    """The files, relative to ``/``: a daemon run by the interpreter ``python`` that keeps its volumes in ``root``."""
    words = (python, "-m", "orlop", "serve", "--root", str(root))
    command = " ".join(_quoted(word.replace("$", "$$")) for word in words)
    service = _SERVICE_UNIT.format(command=command, root=_quoted(str(root)), capabilities=" ".join(CAPABILITIES))
    return {
        _SYSTEM / "orlop.socket": _SOCKET_UNIT.format(socket=SOCKET),
        _SYSTEM / "orlop.service": service,
        Path("etc/containers/containers.conf.d/orlop.conf"): _PODMAN.format(socket=SOCKET),
    }


def changes(prefix: Path, wanted: Mapping[Path, str]) -> list[Change]:
    """What to do so that ``wanted`` is below ``prefix`` and started at boot; nothing if it is so."""
    writes = [Change("write", prefix / path, text) for path, text in wanted.items() if _text(prefix / path) != text]
    links = [Change("link", prefix / path, to) for path, to in _LINKS.items() if _target(prefix / path) != to]
    return [*writes, *links]


def removals(prefix: Path, known: Sequence[Path]) -> list[Change]:
    """What to do so that nothing of it is left below ``prefix``; volumes are not touched."""
    paths = [prefix / path for path in (*_LINKS, *known)]
    return [Change("remove", path) for path in paths if os.path.lexists(path)]


def apply(change: Change) -> None:
    """Do it: a file is there as a whole or not at all."""
    if change.verb == "remove":
        change.path.unlink(missing_ok=True)
        return
    change.path.parent.mkdir(parents=True, exist_ok=True)
    new = change.path.with_name(f".{change.path.name}.new")
    new.unlink(missing_ok=True)
    if change.verb == "link":
        new.symlink_to(change.content)
    else:
        new.write_text(change.content)
        new.chmod(0o644)
    new.replace(change.path)


def _quoted(word: str) -> str:
    """As systemd.syntax(7) wants it."""
    plain = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{plain}"' if any(character in word for character in " \t\"'\\;") else plain


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except (FileNotFoundError, UnicodeDecodeError):
        return None


def _target(path: Path) -> str | None:
    return str(path.readlink()) if path.is_symlink() else None
