"""Many blobs by few requests: what lies together in a pack is read together."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from orlop.errors import NotFound
from orlop.objects.store import ObjectStore
from orlop.snapshots.packs import Blob, pack_key

_GAP: Final = 64 << 10
"""Bytes that are read in vain rather than ask a second time."""
_MOST: Final = 4 << 20


@dataclass(slots=True)
class Range:
    """A part of a pack and the blobs in it."""

    pack: str
    start: int
    end: int
    blobs: list[Blob] = field(default_factory=list)


def together(places: Iterable[tuple[str, Blob]]) -> Iterator[Range]:
    """The blobs as ranges of packs, each blob once; those of one pack in the order of their places."""
    current: Range | None = None
    for pack, blob in sorted(set(places), key=_place):
        end = blob.offset + blob.length
        if current is not None and _fits(current, pack, blob.offset, end):
            current.end = max(current.end, end)
            current.blobs.append(blob)
            continue
        if current is not None:
            yield current
        current = Range(pack, blob.offset, end, [blob])
    if current is not None:
        yield current


def bytes_of(store: ObjectStore, part: Range) -> bytes:
    """The bytes of a range; nothing if its pack is missing."""
    try:
        return b"".join(store.read(pack_key(part.pack), part.start, part.end))
    except NotFound:
        return b""


def read(store: ObjectStore, part: Range) -> dict[bytes, memoryview]:
    """The sealed blobs of a range by id; what is missing is an empty one."""
    content = memoryview(bytes_of(store, part))
    return {b.id: content[b.offset - part.start : b.offset - part.start + b.length] for b in part.blobs}


def _fits(current: Range, pack: str, start: int, end: int) -> bool:
    return current.pack == pack and start - current.end <= _GAP and end - current.start <= _MOST


def _place(item: tuple[str, Blob]) -> tuple[str, int]:
    return item[0], item[1].offset
