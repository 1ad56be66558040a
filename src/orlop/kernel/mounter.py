"""Makes and unmakes mounts, and says who still sees them.

Filesystems are mounted through a context (fsopen, fsconfig, fsmount), which tells in words why it refuses; binds
are cloned with their attributes set before they become visible (open_tree, mount_setattr, move_mount), so a
read-only bind is never writable for a moment.
"""

import contextlib
import errno
import fcntl
import logging
import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from orlop.errors import InUse, OrlopError, Unavailable
from orlop.kernel import loop, mountinfo, probe, waiting
from orlop.kernel import syscalls as sc
from orlop.kernel.namespaces import namespace
from orlop.kernel.processes import command
from orlop.kernel.programs import Programs
from orlop.kernel.transplant import Graft, transplant
from orlop.mount import Mount

_log = logging.getLogger(__name__)
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

_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS, _IMMUTABLE = 0x80086601, 0x40086602, 0x10


class KernelMounter:
    """The kernel's `orlop.mount.Mounter`."""

    def __init__(self, programs: Programs | None = None, patience: float = 5.0) -> None:
        """``programs`` starts those of FUSE mounts; a server has ``patience`` seconds to show that it is there."""
        self.programs = programs or Programs(Path("/run/orlop/programs"))
        self._patience = patience

    def mount(self, mounts: Sequence[Mount], target: Path) -> None:
        """See `Mounter.mount`."""
        _make_bare(target)
        made = 0
        try:
            for mount in mounts:
                self._mount_one(mount, target)
                made += 1
        except (OSError, OrlopError) as error:
            self._unmount_all(target)
            if isinstance(error, OrlopError):
                raise
            kind = mounts[made].type
            raise Unavailable(f"mount of {mounts[made].source!r} ({kind}): {_why(error, kind)}") from error

    def unmount(self, target: Path) -> None:
        """See `Mounter.unmount`."""
        while _is_mount_point(target):
            try:
                _unmount_one(target)
            except OSError as error:
                if error.errno == errno.EBUSY:
                    raise InUse(f"'{target}' is in use{_users_of(target)}") from error
                # A mount whose server died cannot be asked; nothing in it can be lost any more.
                sc.umount(target, sc.MNT_DETACH)
        _remove_bare(target)
        self.programs.finish(target)

    def mounted(self, target: Path) -> bool:
        """See `Mounter.mounted`."""
        return probe.answers(target, self._patience)

    def died(self) -> Iterator[Path]:
        """See `Mounter.died`."""
        return self.programs.died()

    def heal(self, mounts: Sequence[Mount], target: Path) -> None:
        """See `Mounter.heal`.

        The new mount is made beside the dead one, which goes only when the new one answers. A crash in between leaves
        one mount too many, at a place that reconciling cleans up.
        """
        dead = next(mountinfo.at([str(target)]), None)
        if dead is None:
            self.mount(mounts, target)
            return
        fresh = target.with_name(f".{target.name}.new")
        self.unmount(fresh)
        self.mount(mounts, fresh)
        shown = list(_shown(dead))
        self.programs.rename(fresh, target)
        self._unmount_all(target)
        _make_bare(target)
        with _closing(sc.clone_tree(fresh)) as tree:
            sc.move_tree(tree, target)
        self._unmount_all(fresh)
        for pid, entry in shown:
            _show_again(pid, entry, target / entry.root[len(dead.root) :].lstrip("/"))

    def _mount_one(self, mount: Mount, target: Path) -> None:
        if mount.program:
            self.programs.start(mount, target, lambda: self._is_up(target))
        else:
            _mount_one(mount, target)

    def _is_up(self, target: Path) -> bool:
        """Whether ``target`` answers; a program that is still looking for its server does not, yet."""
        try:
            return self.mounted(target)
        except Unavailable:
            return False

    def _unmount_all(self, target: Path) -> None:
        """Take away whatever is there, in use or not."""
        with contextlib.suppress(OSError):
            while _is_mount_point(target):
                sc.umount(target, sc.MNT_DETACH)
            _remove_bare(target)

    def holders(self, targets: Iterable[Path]) -> Mapping[Path, Sequence[int]]:
        """See `Mounter.holders`.

        The mount itself is seen wherever its folder is: in namespaces cloned from ours, and from the host if we run in
        a plugin container. That is no use. Whether a mount is shared does not tell: containers' mounts are slaves of
        ours.
        """
        wanted = {str(target): target for target in targets if _is_mount_point(target)}
        if not wanted:
            return {}
        tops = {(entry.device, entry.root): wanted[entry.target] for entry in mountinfo.at(wanted)}
        return _seen(tops)


def _why(error: OSError, kind: str) -> str:
    """The kernel's words; "no such device" means the filesystem as often as the device."""
    known = Path("/proc/filesystems").read_text().split()
    if error.errno == errno.ENODEV and kind not in known:
        return f"{error.strerror}; this kernel has no filesystem {kind!r}"
    return str(error.strerror)


def _mount_one(mount: Mount, target: Path) -> None:
    if mount.is_bind:
        fd = sc.clone_tree(Path(mount.source), recursive="rbind" in mount.options)
        with _closing(fd):
            if attributes := _split(mount.options)[0]:
                sc.set_attributes(fd, attributes)
            sc.move_tree(fd, target)
    elif "loop" in mount.options:
        with loop.attached(Path(mount.source)) as device:
            _mount_filesystem(mount, device, target)
    else:
        _mount_filesystem(mount, mount.source, target)


def _mount_filesystem(mount: Mount, source: str, target: Path) -> None:
    attributes, parameters = _split(mount.options)
    parameters += [f"{name}={value}" for name, value in mount.secrets]

    def open_() -> int:
        context = sc.syscall(sc.FSOPEN, mount.type.encode(), sc.FSOPEN_CLOEXEC)
        with _closing(context):
            try:
                _configure(context, source, parameters, read_only="ro" in mount.options)
                return sc.syscall(sc.FSMOUNT, context, sc.FSMOUNT_CLOEXEC, attributes)
            except OSError as error:
                raise OSError(error.errno, _complaint(context) or error.strerror) from error

    fd = waiting.Opening(open_).within(waiting.MOUNT) if mount.type in waiting.REMOTE else open_()
    with _closing(fd):
        sc.move_tree(fd, target)


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


def _split(options: Sequence[str]) -> tuple[int, list[str]]:
    """Attributes of the mount (as a bit mask) and parameters of the filesystem."""
    attributes, parameters = 0, []
    for option in options:
        if option in _ATTRIBUTES:
            attributes |= _ATTRIBUTES[option]
        elif option not in _PLAIN:
            parameters.append(option)
    return attributes, parameters


def _unmount_one(target: Path) -> None:
    if not _has_server(target):
        sc.umount(target)
        return
    # Whoever waits for an answer has it in use, also if that is us.
    flags = sc.MNT_DETACH if probe.is_silent(target) else 0
    waiting.unmount(target, flags, lambda: _is_mount_point(target))


def _has_server(target: Path) -> bool:
    try:
        found = sc.mount_at(target)
    except OSError:
        return False
    return found is not None and not found.on_device and mountinfo.type_of(found.device) in waiting.REMOTE


def _is_mount_point(target: Path) -> bool:
    try:
        return sc.mount_at(target) is not None
    except FileNotFoundError:
        return False
    except OSError:  # dead, but there
        return True


def _make_bare(target: Path) -> None:
    """An empty folder to mount on, immutable where the filesystem can: nothing may be written below an absent mount."""
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_mount_point(target):
        _set_immutable(target, True)


def _remove_bare(target: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        _set_immutable(target, False)
        target.rmdir()


def _set_immutable(folder: Path, on: bool) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with _closing(fd), contextlib.suppress(OSError):
        (flags,) = struct.unpack("l", fcntl.ioctl(fd, _FS_IOC_GETFLAGS, bytes(8)))
        wanted = flags | _IMMUTABLE if on else flags & ~_IMMUTABLE
        if wanted != flags:
            fcntl.ioctl(fd, _FS_IOC_SETFLAGS, struct.pack("l", wanted))


def _shown(dead: mountinfo.Entry) -> Iterator[tuple[int, mountinfo.Entry]]:
    """Where else the filesystem of ``dead`` is seen, or a folder in it: a process of the namespace, and the entry."""
    inside = dead.root.rstrip("/") + "/"
    for pid, text in mountinfo.namespaces():
        for entry in mountinfo.parse(text, {dead.device}):
            if (entry.root == dead.root or entry.root.startswith(inside)) and entry.target != dead.target:
                yield pid, entry


def _show_again(pid: int, entry: mountinfo.Entry, source: Path) -> None:
    try:
        transplant(Graft(pid, entry.target, source, _split(tuple(entry.options))[0]))
    except OSError as error:
        _log.warning("process %d still sees a dead mount at %r: %s", pid, entry.target, error)


def _seen(tops: Mapping[tuple[str, str], Path]) -> dict[Path, list[int]]:
    """By target: the processes that see its filesystem and folder (the keys of ``tops``) at another place."""
    found: dict[Path, list[int]] = {}
    devices = {device for device, _ in tops}
    for pid, text in mountinfo.namespaces():
        for entry in mountinfo.parse(text, devices):
            target = next((tops[above] for above in entry.shows() if above in tops), None)
            if target is not None and pid not in found.get(target, ()) and not _is_itself(pid, entry, target):
                found.setdefault(target, []).append(pid)
    return found


def _is_itself(pid: int, entry: mountinfo.Entry, target: Path) -> bool:
    """Whether ``entry`` of process ``pid``'s namespace is on the very folder ``target`` where we mount."""
    # The names first: only then is it sure that no server which is silent is asked.
    if Path(entry.target).name != target.name:
        return False
    try:
        return Path(f"/proc/{pid}/root", entry.target.lstrip("/")).parent.samefile(target.parent)
    except OSError:
        return False


def _users_of(target: Path) -> str:
    """`` by sleep (123), ...``: the processes of our namespace with their working folder below ``target``."""
    found = []
    ours = namespace("self")
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            # Read, and not followed: that could ask a server, perhaps another one, which is silent.
            if link.readlink().is_relative_to(target) and namespace(link.parent.name) == ours:
                pid = int(link.parent.name)
                found.append(f"{command(pid)} ({pid})")
    return " by " + ", ".join(found) if found else ""


@contextlib.contextmanager
def _closing(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)
