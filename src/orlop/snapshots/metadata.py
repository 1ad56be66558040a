"""What belongs to a file beside its content, put back: owner, mode, attributes, times, in the order that keeps them."""

import functools
import os
from collections.abc import Callable, Iterator
from typing import Final

from orlop.errors import Corrupt
from orlop.snapshots import names, nodes, times
from orlop.snapshots.nodes import Attribute, Node

_REFUSALS: Final = (OSError, OverflowError, ValueError, Corrupt)
_IS_ROOT: Final = os.geteuid() == 0


def put_back(node: Node, file: int) -> list[str]:
    """Give an open file or folder the owner, mode, attributes and times of a node; returns what was refused."""
    # A change of owner takes away set-user-ID and capabilities, so the mode and the attributes come after it.
    try:
        _own(node, file)
        os.fchmod(file, nodes.mode_of(node))
        for one in _foreign(node):
            os.setxattr(file, one.name, one.value or b"")
        os.utime(file, ns=_times(node))
    except _REFUSALS:
        return _one_by_one(node, file)
    return []


def _one_by_one(node: Node, file: int) -> list[str]:
    """All that can be put back, and what cannot."""
    refused: list[str] = []
    _try(refused, "owner", lambda: _own(node, file))
    _try(refused, "mode", lambda: os.fchmod(file, nodes.mode_of(node)))
    _attributes(refused, node, file)
    _try(refused, "times", lambda: os.utime(file, ns=_times(node)))
    return refused


def put_back_name(node: Node, folder: int, name: bytes) -> list[str]:
    """The same for what cannot be opened: a link, a device, a pipe, a socket."""
    refused: list[str] = []
    if _may_own():
        _try(refused, "owner", lambda: os.chown(name, node.uid, node.gid, dir_fd=folder, follow_symlinks=False))
    through = b"/proc/self/fd/%d/%s" % (folder, name)
    if node.type != "symlink":
        # Nobody else writes here: what was made a moment ago under this name is still it.
        _try(refused, "mode", lambda: os.chmod(name, nodes.mode_of(node), dir_fd=folder))
    _attributes(refused, node, through, links=False)
    _try(refused, "times", lambda: os.utime(name, ns=_times(node), dir_fd=folder, follow_symlinks=False))
    return refused


def _own(node: Node, file: int) -> None:
    if _may_own():
        os.fchown(file, node.uid, node.gid)


def _may_own() -> bool:
    # As in tar(1): who is not root gets everything as his own.
    return _IS_ROOT


def _attributes(refused: list[str], node: Node, file: int | bytes, *, links: bool = True) -> None:
    for one in _foreign(node):
        put = functools.partial(os.setxattr, file, one.name, one.value or b"", follow_symlinks=links)
        _try(refused, f"attribute {one.name!r}", put)


def _foreign(node: Node) -> Iterator[Attribute]:
    """The attributes but those with a meaning to us: a copy of a placeholder is none."""
    return (one for one in node.extended_attributes or () if not one.name.startswith(names.OWN_ATTRIBUTES))


def _times(node: Node) -> tuple[int, int]:
    modified = times.read(node.mtime)
    return modified if node.atime in ("", node.mtime) else times.read(node.atime), modified


def _try(refused: list[str], what: str, action: Callable[[], None]) -> None:
    try:
        action()
    except _REFUSALS as error:
        refused.append(f"{what}: {error}")
