"""A folder that is being saved, read without leaving it: no symbolic link is followed, whoever swaps one in."""

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from orlop.kernel import beneath as kernel
from orlop.snapshots import names, nodes
from orlop.snapshots.chunks import MIN
from orlop.snapshots.nodes import Node

FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# What was a file when it was listed may be a pipe by now: opening it does not wait.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
# Only the owner and root may ask not to be recorded as readers.
_QUIET: Final = os.O_NOATIME if os.geteuid() == 0 else 0
_TRIES: Final = 3


class NotAFileError(OSError):
    """It is something else than a file by now."""


@dataclass(frozen=True, slots=True)
class Small:
    """A file that was read whole. ``steady`` says that it did not change while it was read."""

    node: Node
    content: bytes
    steady: bool


@contextlib.contextmanager
def beneath(root: int, path: bytes) -> Iterator[int]:
    """The folder ``path`` (parts between slashes, b"" for the root itself); see `orlop.kernel.beneath`."""
    here = kernel.opened(root, path, FOLDER)
    try:
        yield here
    finally:
        os.close(here)


@contextlib.contextmanager
def opened(folder: int, name: bytes) -> Iterator[tuple[int, os.stat_result]]:
    """The file ``name``, open for reading; raises `NotAFileError` if it is none."""
    fd, status = _opened(folder, name)
    try:
        yield fd, status
    finally:
        os.close(fd)


def _opened(folder: int, name: bytes) -> tuple[int, os.stat_result]:
    fd = os.open(name, _FILE | _QUIET, dir_fd=folder)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise NotAFileError(f"{os.fsdecode(name)!r} is no file any more")
    except BaseException:
        os.close(fd)
        raise
    return fd, status


def small(folder: int, name: bytes) -> Small | None:
    """A small file with its content; None if it is a large one by now. Tried again if it changes meanwhile."""
    fd, status = _opened(folder, name)
    try:
        for attempt in range(_TRIES):
            content = os.pread(fd, status.st_size + 1, 0)
            if len(content) > MIN:
                return None
            after = os.fstat(fd)
            steady = is_same(status, after) and len(content) == status.st_size
            if steady or attempt == _TRIES - 1:
                break
            status = after
        return Small(file_node(fd, name, status, len(content)), content, steady)
    finally:
        os.close(fd)


def file_node(fd: int, name: bytes, status: os.stat_result, size: int) -> Node:
    """The node of an open file of which ``size`` bytes were read."""
    found = nodes.node(name, status, attributes(fd))
    assert found is not None  # noqa: S101 - a regular file has a type
    found.size = size
    return found


def other(folder: int, name: bytes, status: os.stat_result) -> Node | None:
    """What is neither file nor folder: a link with its target, a device, a pipe, a socket."""
    found = nodes.node(name, status, attributes(_through(folder, name), links=False))
    if found is not None and found.type == "symlink":
        nodes.set_target(found, os.readlink(name, dir_fd=folder))
    return found


def attributes(file: int | bytes, *, links: bool = True) -> dict[str, bytes]:
    """The extended attributes; none where the filesystem has none, or where one vanishes meanwhile."""
    found: dict[str, bytes] = {}
    try:
        for name in os.listxattr(file, follow_symlinks=links):
            if name.startswith(names.OWN_ATTRIBUTES):
                continue
            name.encode()  # a name that is no UTF-8 cannot be written in JSON; no program of Linux makes one
            found[name] = os.getxattr(file, name, follow_symlinks=links)
    except (OSError, UnicodeEncodeError):
        pass
    return found


def is_same(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether nobody changed the file in between."""
    return (before.st_size, before.st_mtime_ns, before.st_ctime_ns) == (
        after.st_size,
        after.st_mtime_ns,
        after.st_ctime_ns,
    )


def _through(folder: int, name: bytes) -> bytes:
    """A path for the calls that take no folder; its last part is never followed."""
    return b"/proc/self/fd/%d/%s" % (folder, name)
