"""Blocks as nodes: dag-pb (links and data, in protobuf) with UnixFS (what kind of file that is) inside.

Formats: https://ipld.io/specs/codecs/dag-pb/spec/ and https://specs.ipfs.tech/unixfs/. Everything in a block may have
been made up by a stranger: what makes no sense is `Corrupt`, and nothing here trusts a length.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from orlop.errors import Corrupt
from orlop.volumes.ipfs.cid import DAG_PB, RAW, Cid, to_varint, varint

Kind = Literal["file", "directory", "symlink", "shard"]
_KINDS: dict[int, Kind] = {0: "file", 1: "directory", 2: "file", 4: "symlink", 5: "shard"}
_NUMBER, _BYTES = 0, 2
_FIXED = {1: 8, 5: 4}
"""The wire types of protobuf: a varint, bytes with a length, and two that have a size."""
_RAW_LEAF, _FILE = 0, 2


@dataclass(frozen=True, slots=True)
class Link:
    """A node that another one leads to; ``size`` is how much of a file it holds."""

    name: str
    cid: Cid
    size: int = 0


@dataclass(frozen=True, slots=True)
class Node:
    """What a block says. ``data`` is a file's first bytes or a symbolic link's target, ``size`` that of the file.

    ``fanout`` is how many entries a shard of a directory can have.
    """

    kind: Kind
    data: bytes = b""
    links: Sequence[Link] = ()
    size: int = 0
    fanout: int = 0


def decode(cid: Cid, block: bytes) -> Node:
    """What ``block`` says, which is ``cid``'s. Raises `Corrupt`, without naming it."""
    if cid.codec == RAW:
        return Node("file", block, (), len(block))
    if cid.codec != DAG_PB:
        raise Corrupt(f"its codec {cid.codec:#x} is none of files and directories")
    unixfs, names, targets = b"", [], []
    for field, value in _fields(block):
        if field == 1:
            unixfs = _bytes(value)
        elif field == 2:
            name, target = _link(_bytes(value))
            names.append(name)
            targets.append(target)
    return _unixfs(unixfs, names, targets)


def leaves(codec: int, data: bytes) -> Iterator[bytes]:
    """The blocks that nodes make of a piece of a file, ``data``: to see whether it is there already."""
    if codec == RAW:
        yield data
        return
    content = b"\x12" + to_varint(len(data)) + data if data else b""
    for kind in (_FILE, _RAW_LEAF):
        unixfs = bytes([0x08, kind]) + content + b"\x18" + to_varint(len(data))
        yield b"\x0a" + to_varint(len(unixfs)) + unixfs


def _unixfs(message: bytes, names: Sequence[str], targets: Sequence[Cid]) -> Node:
    fields: dict[int, list[int | bytes]] = {}
    for field, value in _fields(message):
        fields.setdefault(field, []).append(value)
    kind = _number(fields.get(1, [-1])[-1])
    if kind not in _KINDS:
        raise Corrupt(f"its UnixFS type {kind} is neither file, directory nor symbolic link")
    data = _bytes(fields.get(2, [b""])[-1])
    if _KINDS[kind] != "file":
        links = [Link(name, target) for name, target in zip(names, targets, strict=True)]
        return Node(_KINDS[kind], data, links, 0, _number(fields.get(6, [0])[-1]))
    sizes = [size for value in fields.get(4, []) for size in _numbers(value)]
    size = _number(fields.get(3, [len(data) + sum(sizes)])[-1])
    if len(sizes) != len(targets) or 0 in sizes or size != len(data) + sum(sizes):
        raise Corrupt("the sizes of its parts do not fit")
    parts = [Link("", target, part) for target, part in zip(targets, sizes, strict=True)]
    return Node("file", data, parts, size)


def _link(message: bytes) -> tuple[str, Cid]:
    name, target = "", None
    for field, value in _fields(message):
        if field == 1:
            target = Cid.of_bytes(_bytes(value))
        elif field == 2:
            try:
                name = _bytes(value).decode()
            except UnicodeDecodeError:
                raise Corrupt(f"the name {value!r} is not UTF-8") from None
    if target is None:
        raise Corrupt(f"its link {name!r} leads nowhere")
    return name, target


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The numbers and values of a protobuf message's fields."""
    rest = memoryview(message)  # a slice of which copies nothing
    while rest:
        key, rest = varint(rest)
        field, wire = key >> 3, key & 7
        if wire == _NUMBER:
            value, rest = varint(rest)
            yield field, value
            continue
        if wire == _BYTES:
            length, rest = varint(rest)
        elif wire in _FIXED:
            length = _FIXED[wire]
        else:
            raise Corrupt(f"a field has the unknown type {wire}")
        if length > len(rest):
            raise Corrupt("it is cut off")
        yield field, bytes(rest[:length])
        rest = rest[length:]


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise Corrupt("a number stands where bytes must")
    return value


def _number(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise Corrupt("bytes stand where a number must")
    return value


def _numbers(value: int | bytes) -> list[int]:
    """One of a repeated field, or all of them packed."""
    if isinstance(value, int):
        return [value]
    found = []
    while value:
        number, value = varint(value)
        found.append(number)
    return found
