"""Makes and unmakes mounts, heals those whose program died, and says who still sees them."""

import contextlib
import errno
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from orlop.errors import Busy, InUse, OrlopError, Unavailable
from orlop.kernel import bare, filesystems, loop, mountinfo, probe, sightings, waiting
from orlop.kernel import syscalls as sc
from orlop.kernel.programs import Programs
from orlop.kernel.reach import reach
from orlop.kernel.transplant import Graft, transplant
from orlop.mount import Mount

_log = logging.getLogger(__name__)


class KernelMounter:
    """The kernel's `orlop.mount.Mounter`."""

    def __init__(self, programs: Programs | None = None, patience: float = 5.0) -> None:
        """``programs`` starts those of FUSE mounts; a server has ``patience`` seconds to show that it is there."""
        self.programs = programs or Programs(Path("/run/orlop/programs"))
        self._patience = patience

    def mount(self, mounts: Sequence[Mount], target: Path) -> None:
        """See `Mounter.mount`."""
        self.programs.begin(target)
        if len(mounts) == 1:
            self._make(mounts, target)
            return
        fresh = beside(target)
        self.unmount(fresh)
        self._make(mounts, fresh)
        self.programs.rename(fresh, target)
        self._move(fresh, target)

    def unmount(self, target: Path) -> None:
        """See `Mounter.unmount`."""
        serving = self.programs.pids(target)
        while bare.is_mount_point(target):
            try:
                _unmount_one(target)
            except OSError as error:
                if error.errno == errno.EBUSY:
                    raise InUse(f"'{target}' is in use{sightings.users_of(target)}") from error
                # A mount whose server died cannot be asked; nothing in it can be lost any more.
                sc.umount(target, sc.MNT_DETACH)
        bare.remove(target)
        self.programs.finish(target, serving)

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
        dead = next(mountinfo.at([str(target)]), None) if bare.is_mount_point(target) else None
        if dead is None:
            self.mount(mounts, target)
            return
        self.programs.settle(target)
        fresh = beside(target)
        self.unmount(fresh)
        self._make(mounts, fresh)
        shown = list(sightings.shown(dead))
        self.programs.rename(fresh, target)
        self._unmount_all(target)
        self._move(fresh, target)
        for pid, entry in shown:
            _show_again(pid, entry, target / entry.root[len(dead.root) :].lstrip("/"))

    def _make(self, mounts: Sequence[Mount], target: Path) -> None:
        bare.make(target)
        made = 0
        try:
            for mount in mounts:
                self._mount_one(mount, target)
                made += 1
        except (OSError, OrlopError) as error:
            self._unmount_all(target)
            with contextlib.suppress(Busy):
                self.programs.finish(target)
            if isinstance(error, OrlopError):
                raise
            kind = mounts[made].type
            raise Unavailable(f"mount of {mounts[made].source!r} ({kind}): {filesystems.why(error, kind)}") from error

    def _move(self, fresh: Path, target: Path) -> None:
        """Show at ``target`` what is on top at ``fresh``, and there nothing any more.

        What is below the top is nowhere to be seen then: the program that shows it holds it, and it goes with that.
        """
        bare.make(target)
        with sc.closing(sc.clone_tree(fresh)) as tree:
            sc.move_tree(tree, target)
        self._unmount_all(fresh)

    def _mount_one(self, mount: Mount, target: Path) -> None:
        if mount.program:
            below = _mount_id(target)
            self.programs.start(
                mount, target, lambda: _mount_id(target) != below and self._is_up(target, mount.question)
            )
        else:
            filesystems.make(mount, target)

    def _is_up(self, target: Path, question: str) -> bool:
        """Whether ``target`` answers; a program that is still looking for its server does not, yet."""
        try:
            return probe.answers(target, self._patience, question)
        except Unavailable:
            return False

    def _unmount_all(self, target: Path) -> None:
        """Take away whatever is there, in use or not."""
        with contextlib.suppress(OSError):
            while bare.is_mount_point(target):
                sc.umount(target, sc.MNT_DETACH)
            bare.remove(target)

    def holders(self, targets: Iterable[Path]) -> Mapping[Path, Sequence[int]]:
        """See `Mounter.holders`.

        The mount itself is seen wherever its folder is: in namespaces cloned from ours, and from the host if we run in
        a plugin container. That is no use. Whether a mount is shared does not tell: containers' mounts are slaves of
        ours.
        """
        tops = dict(_tops(list(targets)))
        return sightings.seen(tops) if tops else {}

    def left(self, image: Path, target: Path) -> Sequence[int]:
        """See `Mounter.left`."""
        device = None if bare.is_mount_point(target) else loop.device(image)
        return sightings.seen({(device, "/"): target}).get(target, ()) if device else ()

    def reach(self, pid: int, target: Path) -> None:
        """See `Mounter.reach`."""
        reach(pid, target)


def _tops(targets: Sequence[Path]) -> Iterator[tuple[tuple[str, str], Path]]:
    """What is seen of each of ``targets``: the filesystem and the folder in it."""
    mounted = {str(target): target for target in targets if bare.is_mount_point(target)}
    if mounted:
        yield from (((entry.device, entry.root), mounted[entry.target]) for entry in mountinfo.at(mounted))
    folders = [target for target in targets if str(target) not in mounted]
    yield from mountinfo.below(folders)


def beside(target: Path) -> Path:
    """Where mounts are made that come to ``target`` when all is well; a crash leaves them there."""
    return target.with_name(f".{target.name}.new")


def _mount_id(target: Path) -> int | None:
    try:
        found = sc.mount_at(target)
    except OSError:
        return None
    return found.id if found else None


def _unmount_one(target: Path) -> None:
    if not _has_server(target):
        sc.umount(target)
        return
    # Whoever waits for an answer has it in use, also if that is us.
    flags = sc.MNT_DETACH if probe.is_silent(target) else 0
    waiting.unmount(target, flags, lambda: bare.is_mount_point(target))


def _has_server(target: Path) -> bool:
    try:
        found = sc.mount_at(target)
    except OSError:
        return False
    return found is not None and not found.on_device and mountinfo.type_of(found.device) in waiting.REMOTE


def _show_again(pid: int, entry: mountinfo.Entry, source: Path) -> None:
    try:
        transplant(Graft(pid, entry.target, source, filesystems.split(tuple(entry.options))[0]))
    except OSError as error:
        _log.warning("process %d still sees a dead mount at %r: %s", pid, entry.target, error)
