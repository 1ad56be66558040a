"""Lets an engine see what is mounted here, where it lives in another mount namespace.

A daemon in a container mounts in a namespace of its own, and the engine sees that through one folder that both share
(mount_namespaces(7), "Shared subtrees"). Docker takes its own mount of that folder away after a plugin has ended, and
may be late: then it takes that of the next one, which it has just started. From then on nothing that is mounted here
would reach anybody, and containers would get the bare folder below.
"""

import os
from pathlib import Path

from orlop.errors import Unavailable
from orlop.kernel import mountinfo
from orlop.kernel.namespaces import namespace
from orlop.kernel.transplant import show


def reach(pid: int, target: Path) -> None:
    """See to it that process ``pid`` sees what is mounted at ``target``; one that has ended needs nothing.

    Raises `Unavailable` if it does not, and that cannot be mended.
    """
    theirs = namespace(pid)
    if theirs in (None, namespace("self")) or _is_seen(pid, target):
        return
    try:
        _share_again(pid, target.parent)
    except OSError as error:
        raise _unseen(pid, target) from error
    if not _is_seen(pid, target):
        raise _unseen(pid, target)


def refuse_another(pid: int, folder: Path) -> None:
    """Raises `Unavailable` if process ``pid`` does not have ``folder``, or has another one there; it may have ended."""
    if namespace(pid) in (None, namespace("self")):
        return
    try:
        is_same = folder.samefile(Path(f"/proc/{pid}/root", *folder.parts[1:]))
    except OSError:
        is_same = False
    if not is_same:
        raise Unavailable(
            f"the engine (process {pid}) does not have the folder '{folder}', and its containers would not see it; "
            "start orlop with --mounts and a folder that both have, and volumes that are made then are mounted there"
        )


def _is_seen(pid: int, target: Path) -> bool:
    mine = next(mountinfo.at([str(target)]), None)
    if mine is None:
        return False
    theirs = mountinfo.of(pid, {mine.device})
    # By the folder's name, too: what is shown here may be mounted at a place of its own there.
    return any(entry.root == mine.root and Path(entry.target).name == target.name for entry in theirs)


def _share_again(pid: int, folder: Path) -> None:
    """Show our mount ``folder`` to ``pid`` where it has the same folder: as a peer, which sees what follows, too."""
    mine = next(mountinfo.at([str(folder)]), None)
    place = _place(pid, mine) if mine else None
    if place is None:
        raise FileNotFoundError(f"process {pid} does not have '{folder}'")
    show(pid, folder, place)


def _place(pid: int, mine: mountinfo.Entry) -> str | None:
    """Where ``pid`` sees the folder that ``mine`` is a mount of."""
    found = None
    for entry in mountinfo.of(pid, {mine.device}):
        below = os.path.relpath(mine.root, entry.root)
        if not below.startswith("..") and (found is None or len(entry.root) >= len(found[0])):
            found = entry.root, os.path.normpath(f"{entry.target}/{below}")
    return found[1] if found else None


def _unseen(pid: int, target: Path) -> Unavailable:
    return Unavailable(
        f"what is mounted at '{target}' does not reach the engine (process {pid}), and its containers would not see it;"
        " start the plugin anew (docker plugin disable -f, docker plugin enable)"
    )
