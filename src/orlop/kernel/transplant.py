"""Puts a mount in the place of a dead one in somebody else's mount namespace, such as a container's.

A thread of ours enters the namespace and makes nothing there but system calls: whatever it loaded from a file, would be
a file of the container.
"""

import os
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
    tree = sc.clone_tree(graft.source)
    try:
        if graft.attributes:
            sc.set_attributes(tree, graft.attributes)
        namespace = os.open(f"/proc/{graft.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            place = os.fsencode(graft.place)
            in_a_thread(lambda: _go_and_show(namespace, tree, place), "transplant")
        finally:
            os.close(namespace)
    finally:
        os.close(tree)


def _go_and_show(namespace: int, tree: int, place: bytes) -> None:
    # A thread that shares its root folder with others cannot change its namespace alone.
    sc.unshare(sc.CLONE_FS)
    sc.setns(namespace, sc.CLONE_NEWNS)
    sc.umount(place, sc.MNT_DETACH)
    sc.move_tree(tree, place)
