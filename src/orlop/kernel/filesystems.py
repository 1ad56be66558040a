"""Makes one mount, by the kernel alone.

Filesystems are mounted through a context (fsopen, fsconfig, fsmount), which tells in words why it refuses; binds
are cloned with their attributes set before they become visible (open_tree, mount_setattr, move_mount), so a
read-only bind is never writable for a moment.
"""

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from orlop.kernel import idmap, loop, subdir, waiting
from orlop.kernel import syscalls as sc
from orlop.mount import Mount

_ATTRIBUTES = {
    "ro": 0x1,
    "nosuid": 0x2,
    "nodev": 0x4,
    "noexec": 0x8,
    "noatime": 0x10,
    "strictatime": 0x20,
    "nodiratime": 0x80,
}
"""MOUNT_ATTR_* of linux/mount.h, by mount(8)'s words."""
_PLAIN = frozenset(
    {
        "rw",
        "suid",
        "dev",
        "exec",
        "relatime",
        "atime",
        "diratime",
        "bind",
        "rbind",
        "loop",
        "defaults",
        "auto",
        "noauto",
        "nofail",
        "_netdev",
    }
)
"""Words of mount(8) that ask for what is so anyway, or that are for mount(8) itself."""
_SUBDIR = "X-mount.subdir="
"""As mount(8) has it: a folder of the new filesystem is what one sees, not its root."""


def why(error: OSError, kind: str) -> str:
    """The kernel's words; "no such device" means the filesystem as often as the device."""
    known = Path("/proc/filesystems").read_text().split()
    if error.errno == errno.ENODEV and kind not in known:
        return f"{error.strerror}; this kernel has no filesystem {kind!r}"
    return str(error.strerror)


def make(mount: Mount, target: Path) -> None:
    """Make one mount that needs no program; raises `OSError` with the kernel's words."""
    if mount.is_bind:
        fd = sc.clone_tree(Path(mount.source), recursive="rbind" in mount.options)
        with sc.closing(fd):
            for option in mount.options:
                if option.startswith(idmap.OPTION):
                    idmap.apply(fd, option.removeprefix(idmap.OPTION))
            if attributes := split(mount.options)[0]:
                sc.set_attributes(fd, attributes)
            sc.move_tree(fd, target)
    elif "loop" in mount.options:
        with loop.attached(Path(mount.source)) as device:
            _mount_filesystem(mount, device, target)
    else:
        _mount_filesystem(mount, mount.source, target)


@contextlib.contextmanager
def unseen(mount: Mount) -> Iterator[Path]:
    """The root of a filesystem that is mounted nowhere: a path that means something in this process only.

    It is unmounted when the last file in it is closed. Raises `OSError`.
    """
    with sc.closing(_open(mount, mount.source)) as fd:
        yield Path(f"/proc/{os.getpid()}/fd/{fd}")


def _mount_filesystem(mount: Mount, source: str, target: Path) -> None:
    with sc.closing(_open(mount, source)) as fd:
        folders = [word.removeprefix(_SUBDIR) for word in mount.options if word.startswith(_SUBDIR)]
        if not folders:
            sc.move_tree(fd, target)
            return
        with sc.closing(subdir.clone(fd, folders[0], target)) as inner:
            sc.move_tree(inner, target)


def _open(mount: Mount, source: str) -> int:
    """A filesystem as a mount that is nowhere yet."""
    attributes, parameters = split(mount.options)
    parameters = [word for word in parameters if not word.startswith(_SUBDIR)]
    parameters += [f"{name}={value}" for name, value in mount.secrets]

    def open_() -> int:
        context = sc.syscall(sc.FSOPEN, mount.type.encode(), sc.FSOPEN_CLOEXEC)
        with sc.closing(context):
            try:
                _configure(context, source, parameters, read_only="ro" in mount.options)
                return sc.syscall(sc.FSMOUNT, context, sc.FSMOUNT_CLOEXEC, attributes)
            except OSError as error:
                raise OSError(error.errno, _complaint(context) or error.strerror) from error

    return waiting.Opening(open_).within(waiting.MOUNT) if mount.type in waiting.REMOTE else open_()


def _configure(context: int, source: str, parameters: Sequence[str], *, read_only: bool) -> None:
    sc.syscall(sc.FSCONFIG, context, sc.FSCONFIG_SET_STRING, b"source", os.fsencode(source), 0)
    if read_only:
        sc.syscall(sc.FSCONFIG, context, sc.FSCONFIG_SET_FLAG, b"ro", None, 0)
    for parameter in parameters:
        key, equals, value = parameter.partition("=")
        kind = sc.FSCONFIG_SET_STRING if equals else sc.FSCONFIG_SET_FLAG
        sc.syscall(sc.FSCONFIG, context, kind, key.encode(), value.encode() if equals else None, 0)
    sc.syscall(sc.FSCONFIG, context, sc.FSCONFIG_CMD_CREATE, None, None, 0)


def _complaint(context: int) -> str:
    """What the kernel says about a context it refused: lines such as ``e xfs: unknown parameter``."""
    lines = []
    with contextlib.suppress(OSError):
        while message := os.read(context, 4096):
            lines.append(message.decode(errors="replace").strip().partition(" ")[2])
    return "; ".join(lines)


def split(options: Sequence[str]) -> tuple[int, list[str]]:
    """Attributes of the mount (as a bit mask) and parameters of the filesystem."""
    attributes, parameters = 0, []
    for option in options:
        if option in _ATTRIBUTES:
            attributes |= _ATTRIBUTES[option]
        elif option not in _PLAIN:
            parameters.append(option)
    return attributes, parameters
