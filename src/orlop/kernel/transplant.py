"""Shows a mount in somebody else's mount namespace, such as a container's; also in the place of one that died.

A thread of ours enters the namespace and makes nothing there but system calls: whatever it loaded from a file, would be
a file of the container.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orlop.kernel import syscalls as sc
from orlop.kernel.aside import in_a_thread


@dataclass(frozen=True, slots=True)
class Graft:
    """What a process ``pid`` is to see: ``source`` (a path of ours) at ``place`` (a path of its namespace)."""

    pid: int
    place: str
    source: Path
    attributes: int
    """MOUNT_ATTR_* of mount_setattr(2)."""


def transplant(graft: Graft) -> None:
    """Take away what is mounted at the place and show the source there instead; raises `OSError`."""
    with sc.closing(sc.clone_tree(graft.source)) as tree:
        if graft.attributes:
            sc.set_attributes(tree, graft.attributes)

        def replace(place: bytes) -> None:
            sc.umount(place, sc.MNT_DETACH)
            sc.move_tree(tree, place)

        _over_there(graft.pid, graft.place, replace)


def show(pid: int, folder: Path, place: str) -> None:
    """Show process ``pid`` our ``folder``, with all that is mounted below it, at ``place``; raises `OSError`.

    Where ``folder`` is a shared mount, both see from now on what is mounted there.
    """
    with sc.closing(sc.clone_tree(folder, recursive=True)) as tree:
        _over_there(pid, place, lambda place: sc.move_tree(tree, place))


def _over_there(pid: int, place: str, work: Callable[[bytes], None]) -> None:
    """Do ``work`` with ``place`` in the mount namespace of ``pid``."""
    name = os.fsencode(place)
    with sc.closing(os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)) as namespace:

        def go() -> None:
            # A thread that shares its root folder with others cannot change its namespace alone.
            sc.unshare(sc.CLONE_FS)
            sc.setns(namespace, sc.CLONE_NEWNS)
            work(name)

        in_a_thread(go, "over there")
