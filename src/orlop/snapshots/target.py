"""The folder into which is restored: written without ever leaving it, whatever the names and links in it say."""

import os
import stat
from typing import Final

from orlop.snapshots import metadata, nodes, source
from orlop.snapshots.chunks import BLOCK
from orlop.snapshots.nodes import Node

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ZEROS: Final = bytes(BLOCK)


class NewFile:
    """A new file of ``size`` zeros, open for writing; a context. Gone again if the content does not come to an end."""

    __slots__ = ("_fd", "_folder", "_name", "_size")

    def __init__(self, folder: int, name: bytes, size: int) -> None:
        self._folder, self._name, self._size, self._fd = folder, name, size, -1

    def __enter__(self) -> int:
        self._fd = os.open(self._name, _NEW, 0o600, dir_fd=self._folder)
        if self._size:
            os.ftruncate(self._fd, self._size)
        return self._fd

    def __exit__(self, kind: object, *_: object) -> None:
        os.close(self._fd)
        if kind is not None:
            os.unlink(self._name, dir_fd=self._folder)


def fill(fd: int, content: bytes, place: int) -> None:
    """Write the content where it belongs; zeros are left out, so that holes stay holes."""
    view, start, end = memoryview(content), 0, 0
    for at in range(0, len(view), BLOCK):
        block = view[at : at + BLOCK]
        if block == (_ZEROS if len(block) == BLOCK else _ZEROS[: len(block)]):
            write(fd, view[start:end], place + start)
            start = end = at + len(block)
        else:
            end = at + len(block)
    write(fd, view[start:end], place + start)


def whole_file(folder: int, name: bytes, node: Node, content: bytes) -> list[str]:
    """A file with all its content; returns what of it was refused."""
    sparse = len(content) >= BLOCK
    with NewFile(folder, name, len(content) if sparse else 0) as fd:
        if sparse:
            fill(fd, content, 0)
        else:
            write(fd, memoryview(content), 0)
        return metadata.put_back(node, fd)


def special(folder: int, node: Node) -> list[str]:
    """A symbolic link, device, pipe or socket; returns what of it was refused."""
    name = nodes.name_of(node)
    if node.type == "symlink":
        os.symlink(nodes.target_of(node), name, dir_fd=folder)
    else:
        os.mknod(name, nodes.KINDS[node.type] | 0o600, node.device, dir_fd=folder)
    return metadata.put_back_name(node, folder, name)


def make_folder(folder: int, name: bytes) -> bool:
    """A folder of that name; False if there is one already."""
    try:
        os.mkdir(name, 0o700, dir_fd=folder)
    except FileExistsError:
        if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            return False
        os.unlink(name, dir_fd=folder)
        os.mkdir(name, 0o700, dir_fd=folder)
    return True


def remove(folder: int, name: bytes) -> None:
    """Take away whatever is there, with everything below; links are taken away, never followed."""
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return
    except IsADirectoryError:
        with source.beneath(folder, name) as below:
            with os.scandir(below) as entries:
                inside = [os.fsencode(entry.name) for entry in entries]
            for one in inside:
                remove(below, one)
        os.rmdir(name, dir_fd=folder)


def write(fd: int, view: memoryview, place: int) -> None:
    """All of the bytes, from ``place`` on."""
    while view:
        count = os.pwrite(fd, view, place)
        view, place = view[count:], place + count
