"""A tree: one folder's entries as restic's JSON has them, each a node with everything that is known of a file."""

import functools
import grp
import os
import pwd
import stat
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from orlop.errors import Corrupt
from orlop.snapshots import names, times

# Go's numbers for what the kernel keeps in st_mode; the permissions are the same.
_SETUID, _SETGID, _STICKY = 1 << 23, 1 << 22, 1 << 20
_KINDS: Final = {
    stat.S_IFREG: ("file", 0),
    stat.S_IFDIR: ("dir", 1 << 31),
    stat.S_IFLNK: ("symlink", 1 << 27),
    stat.S_IFBLK: ("dev", 1 << 26),
    stat.S_IFCHR: ("chardev", 1 << 26 | 1 << 21),
    stat.S_IFIFO: ("fifo", 1 << 25),
    stat.S_IFSOCK: ("socket", 1 << 24),
}
_KIND: Final = 0o170000
"""The bits of st_mode that tell the type of a file (inode(7))."""
KINDS: Final = {kind: bits for bits, (kind, _) in _KINDS.items()}
"""The kernel's file type of each type of node."""


class Attribute(msgspec.Struct, frozen=True, gc=False):
    """An extended attribute; access control lists are two of them."""

    name: str
    value: bytes | None


class Node(msgspec.Struct, omit_defaults=True, gc=False):
    """One entry of a folder. Use `name_of`, `mode_of` and `target_of` for what JSON has in a form of its own."""

    name: str
    type: str
    uid: int
    gid: int
    content: list[str] | None
    mode: int = 0
    mtime: str = ""
    atime: str = ""
    ctime: str = ""
    user: str = ""
    group: str = ""
    inode: int = 0
    device_id: int = 0
    size: int = 0
    links: int = 0
    linktarget: str = ""
    linktarget_raw: bytes | None = None
    extended_attributes: list[Attribute] | None = None
    device: int = 0
    subtree: str | None = None


class Tree(msgspec.Struct):
    """A folder."""

    nodes: list[Node] | None


encode: Final = msgspec.json.Encoder().encode
decode: Final = msgspec.json.Decoder(Node).decode
_decoder: Final = msgspec.json.Decoder(Tree)


def tree(entries: Iterable[bytes]) -> bytes:
    """The blob of a folder, from its encoded nodes in the order of their names."""
    return b'{"nodes":[' + b",".join(entries) + b"]}\n"


def parsed(blob: bytes, name: str) -> list[Node]:
    """The nodes in a tree blob; raises `Corrupt` naming it."""
    try:
        return _decoder.decode(blob).nodes or []
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt(f"tree {name!r} is no valid document: {error}") from None


def node(name: bytes, status: os.stat_result, attributes: Mapping[str, bytes]) -> Node | None:
    """What the kernel says of a file; content, target and subtree are the caller's. None for a type restic lacks."""
    known = _KINDS.get(stat.S_IFMT(status.st_mode))
    if known is None:
        return None
    kind, bits = known
    modified = times.written(status.st_mtime_ns)
    # Most files were changed when they were written.
    same = status.st_ctime_ns == status.st_mtime_ns
    return Node(
        name=names.quoted(name),
        type=kind,
        uid=status.st_uid,
        gid=status.st_gid,
        content=None,
        mode=_go_mode(status.st_mode) | bits,
        mtime=modified,
        # The last access is not worth a new tree for every folder that somebody looked into; restic does the same.
        atime=modified,
        ctime=modified if same else times.written(status.st_ctime_ns),
        user=_user(status.st_uid),
        group=_group(status.st_gid),
        inode=status.st_ino,
        device_id=status.st_dev,
        size=status.st_size if kind == "file" else 0,
        links=status.st_nlink if kind != "dir" else 0,
        extended_attributes=[Attribute(*one) for one in sorted(attributes.items())] if attributes else None,
        device=status.st_rdev if kind in ("dev", "chardev") else 0,
    )


def is_unchanged(old: Node, status: os.stat_result) -> bool:
    """Whether the file is as it was: size, modification, change and inode all say so (never one of them alone)."""
    if old.inode != status.st_ino or (old.size != status.st_size and old.type == "file"):
        return False
    modified, changed = status.st_mtime_ns, status.st_ctime_ns
    if KINDS.get(old.type) != status.st_mode & _KIND or times.read(old.ctime) != changed:
        return False
    # Most files were changed when they were written, and then one look is enough for both.
    return modified == changed if old.mtime == old.ctime else times.read(old.mtime) == modified


def set_target(entry: Node, target: bytes) -> None:
    """Where a symbolic link points, which may be any bytes."""
    entry.linktarget = target.decode(errors="replace")
    if entry.linktarget.encode() != target:
        entry.linktarget_raw = target


def target_of(entry: Node) -> bytes:
    """Where a symbolic link points."""
    return entry.linktarget_raw if entry.linktarget_raw is not None else entry.linktarget.encode()


def mode_of(entry: Node) -> int:
    """The permissions as chmod(2) takes them."""
    if not entry.mode & (_SETUID | _SETGID | _STICKY):
        return entry.mode & 0o777
    special = ((_SETUID, stat.S_ISUID), (_SETGID, stat.S_ISGID), (_STICKY, stat.S_ISVTX))
    return entry.mode & 0o777 | sum(bit for flag, bit in special if entry.mode & flag)


def name_of(entry: Node) -> bytes:
    """The name; raises `Corrupt` for one that would lead out of its folder."""
    name = names.unquoted(entry.name)
    if not names.is_safe(name):
        raise Corrupt(f"{entry.name!r} cannot be the name of a file; the tree was not written by an honest program")
    return name


def makes_sense(entry: Node) -> bool:
    """Whether its numbers are such as a kernel has."""
    numbers = (entry.uid, entry.gid, entry.mode, entry.device, entry.size, entry.inode, entry.links, entry.device_id)
    return min(numbers) >= 0 and max(numbers) < 1 << 64


def _go_mode(mode: int) -> int:
    special = ((_SETUID, stat.S_ISUID), (_SETGID, stat.S_ISGID), (_STICKY, stat.S_ISVTX))
    return mode & 0o777 | (sum(flag for flag, bit in special if mode & bit) if mode & 0o7000 else 0)


@functools.lru_cache(4096)
def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return ""


@functools.lru_cache(4096)
def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return ""
