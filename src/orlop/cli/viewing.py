"""``orlop snapshot mount``: a snapshot as a folder of the host, read-only, for as long as the command runs.

The package mfusepy speaks to the kernel by libfuse; nothing else needs either.
"""

import errno
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from ctypes.util import find_library
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from orlop.cli.options import FOLDER
from orlop.cli.repositories import with_timeline
from orlop.errors import Invalid, NotFound, OrlopError, Unavailable
from orlop.snapshots import names, nodes, times
from orlop.snapshots.locks import Lock
from orlop.snapshots.nodes import Node
from orlop.snapshots.restore import find
from orlop.snapshots.treereader import TreeReader
from orlop.snapshots.view import File, View
from orlop.volumes.timeline import Timeline, root

_FOREVER = "3600"
"""Seconds that the kernel may remember what it was told: a snapshot never changes."""

_BY_SIGNAL = 8
"""With this libfuse 3 ends, after unmounting, when it was asked to by a signal (fuse_main(3))."""


@click.command()
@click.argument("reference", metavar="VOLUME@SNAPSHOT")
@click.argument("folder", type=FOLDER, metavar="FOLDER")
@with_timeline
def mount(timeline: Timeline, reference: str, folder: Path) -> None:
    """Show a snapshot's files in an empty folder, read-only, until ctrl-C or umount.

    Only root sees them. What is read is fetched and verified when it is read. If the command is killed, 'umount FOLDER'
    removes the dead mount.
    """
    fuse, found = _fuse(), timeline.find(reference)
    if not folder.is_dir() or any(folder.iterdir()):
        raise Invalid(f"'{folder}' is no empty folder; make one")
    top = find(TreeReader(timeline.repository), found.file, root(found))

    def ready() -> None:
        click.echo(f"{found.reference} is in '{folder}' until ctrl-C or umount")

    options = {"ro": True, "nosuid": True, "nodev": True, "default_permissions": True, "fsname": found.reference}
    kept = {"attr_timeout": _FOREVER, "entry_timeout": _FOREVER, "kernel_cache": True}
    # The lock: what this snapshot needs stays, even if somebody forgets it meanwhile.
    with Lock(timeline.repository):
        try:
            fuse.FUSE(
                _Operations(View(timeline.repository, top), ready),
                str(folder.absolute()),
                foreground=True,
                nothreads=True,
                **options,
                **kept,
            )
        except RuntimeError as error:
            if error.args == (_BY_SIGNAL,):
                return
            raise Unavailable(f"'{folder}' cannot be mounted: libfuse ended with status {error}") from error


def _fuse() -> ModuleType:
    newest = find_library("fuse3")  # by itself it would rather take version 2 where that is there as well
    if newest:
        os.environ.setdefault("FUSE_LIBRARY_PATH", newest)
    try:
        return importlib.import_module("mfusepy")
    except (ImportError, OSError) as error:
        raise Unavailable(
            f"'orlop snapshot mount' needs libfuse and the Python package mfusepy ({error}): "
            "install fuse3 and 'orlop[mount]', or take 'orlop snapshot restore'"
        ) from None


class _Operations:
    """What libfuse calls, by the names and in the forms that mfusepy has for it."""

    use_ns = True

    def __init__(self, view: View, ready: Callable[[], None]):
        self._view, self._ready = view, ready
        self._files: dict[int, File] = {}

    def init(self, _path: str) -> None:
        self._ready()

    def getattr(self, path: str, _fh: int | None = None) -> dict[str, Any]:
        with _told(path):
            return _status(self._node(path))

    def readdir(self, path: str, _fh: int) -> Iterable[str]:
        with _told(path):
            return [".", "..", *map(os.fsdecode, self._view.entries(self._node(path)))]

    def readlink(self, path: str) -> str:
        with _told(path):
            return os.fsdecode(nodes.target_of(self._node(path)))

    def open(self, path: str, _flags: int) -> int:
        with _told(path):
            number = next(each for each in range(len(self._files) + 1) if each not in self._files)
            self._files[number] = self._view.open(self._node(path))
            return number

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        with _told(path):
            return self._files[fh].read(size, offset)

    def release(self, _path: str, fh: int) -> int:
        self._files.pop(fh, None)
        return 0

    def listxattr(self, path: str) -> Iterable[str]:
        with _told(path):
            return list(_attributes(self._node(path)))

    def getxattr(self, path: str, name: str, _position: int = 0) -> bytes:
        with _told(path):
            found = _attributes(self._node(path))
        if name not in found:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        return found[name]

    def _node(self, path: str) -> Node:
        return self._view.node(os.fsencode(path))


@contextmanager
def _told(path: str) -> Iterator[None]:
    """Errors as the kernel knows them; one of the repository is told here, where somebody can read it."""
    try:
        yield
    except NotFound:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT)) from None
    except OrlopError as error:
        click.echo(f"orlop: {path!r}: {error}", err=True)
        sys.stderr.flush()
        raise OSError(errno.EIO, str(error)) from None


def _status(node: Node) -> dict[str, Any]:
    when = times.read(node.mtime) if node.mtime else 0
    return {
        "st_mode": nodes.KINDS.get(node.type, 0) | nodes.mode_of(node),
        "st_nlink": node.links or 1,
        "st_uid": node.uid & 0xFFFFFFFF,
        "st_gid": node.gid & 0xFFFFFFFF,
        "st_size": len(nodes.target_of(node)) if node.type == "symlink" else node.size & (1 << 63) - 1,
        "st_blocks": (node.size + 511) // 512 & (1 << 62) - 1,
        "st_rdev": node.device,
        "st_atime": when,
        "st_mtime": when,
        "st_ctime": times.read(node.ctime) if node.ctime else when,
    }


def _attributes(node: Node) -> dict[str, bytes]:
    found = {os.fsdecode(names.unquoted(each.name)): each.value or b"" for each in node.extended_attributes or ()}
    # Their meaning is the kernel's business, and none of a view's.
    return {name: value for name, value in found.items() if name.startswith("user.")}
