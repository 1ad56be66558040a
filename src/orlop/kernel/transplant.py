"""Puts a mount in the place of a dead one in somebody else's mount namespace, such as a container's.

A thread of ours enters the namespace and makes nothing there but system calls: whatever it loaded from a file, would be
a file of the container.
"""

import os
import threading
from dataclasses import dataclass
from pathlib import Path

from orlop.kernel import syscalls as sc

_CLONE_FS, _CLONE_NEWNS = 0x200, 0x20000


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
            _in_a_thread(namespace, tree, os.fsencode(graft.place))
        finally:
            os.close(namespace)
    finally:
        os.close(tree)


def _in_a_thread(namespace: int, tree: int, place: bytes) -> None:
    failed: list[OSError] = []

    def work() -> None:
        try:
            # A thread that shares its root folder with others cannot change its namespace alone.
            sc.unshare(_CLONE_FS)
            sc.setns(namespace, _CLONE_NEWNS)
            sc.umount(place, sc.MNT_DETACH)
            sc.move_tree(tree, place)
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=work, name="transplant")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
