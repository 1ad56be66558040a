"""Folders reached step by step from one that is open: no symbolic link on the way is followed, no error is raw."""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from orlop.errors import Invalid, NoSpace, NotFound, OrlopError, Unavailable

_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def translated(folder: Path) -> Iterator[None]:
    """An `OSError` of a system call in ``folder``, as what the caller can do about it."""
    try:
        yield
    except OSError as error:
        raise _kind(folder, error) from error


@contextmanager
def opened(folder: Path, parts: Sequence[str] = ()) -> Iterator[int]:
    """A descriptor of the folder ``parts`` below ``folder``, which may itself be behind links.

    Raises `Unavailable` if ``folder`` is missing, `NotFound` if something below it is.
    """
    with translated(folder):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            inner = enter(folder, part, fd, _FOLDER)
            os.close(fd)
            fd = inner
        yield fd
    finally:
        os.close(fd)


def enter(folder: Path, name: str, above: int, flags: int) -> int:
    """Open what is called ``name`` in an open folder, somewhere in ``folder``; a link is nothing: `NotFound`."""
    try:
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    except OSError as error:
        if error.errno in _MISSING:
            raise NotFound(f"there is no {name!r} in '{folder}'") from None
        raise _kind(folder, error) from error


def make(folder: Path, parts: Sequence[str]) -> None:
    """Make the folder ``parts`` below ``folder``, durably; there already is fine, and so is another who makes it.

    Raises `Invalid` where something else than a folder is in the way.
    """
    for depth in range(len(parts)):
        with opened(folder, parts[:depth]) as above, translated(folder):
            try:
                os.mkdir(parts[depth], 0o700, dir_fd=above)
            except FileExistsError:
                if not stat.S_ISDIR(os.lstat(parts[depth], dir_fd=above).st_mode):
                    there = "/".join(parts[: depth + 1])
                    raise Invalid(f"nothing can be stored below {there!r}, which is no folder in '{folder}'") from None
            # Also if another made it: that one may not have come this far, and our object must not wait for it.
            os.fsync(above)


def names(fd: int) -> list[str]:
    """What is in a folder, in the order of the keys that it leads to; the name of a folder ends in ``/``.

    Hidden names and what is neither file nor folder are left out. ``a-b`` comes before ``a/b``, so a folder is
    sorted with its slash.
    """
    found = []
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                found.append(f"{entry.name}/")
            elif entry.is_file(follow_symlinks=False):
                found.append(entry.name)
    return sorted(found)


def _kind(folder: Path, error: OSError) -> OrlopError:
    words = os.strerror(error.errno or 0).lower()
    if error.errno in _FULL:
        return NoSpace(f"no space left in '{folder}': {words}")
    if error.errno in _REFUSED:
        return Unavailable(f"'{folder}' cannot be used: {words}; look at its owner, its mode and how it is mounted")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return Unavailable(f"there is no folder '{folder}': make it, or mount what it is on")
    if error.errno == errno.ENAMETOOLONG:
        return Invalid(f"a name is too long for '{folder}': {words}")
    if error.errno == errno.ENOLCK:
        return Unavailable(f"'{folder}' has no file locks: mount it with them, or keep the objects elsewhere")
    return Unavailable(f"'{folder}' cannot be used: {words}")
