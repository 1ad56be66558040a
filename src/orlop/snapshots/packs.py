"""Packs: many sealed blobs in one object, with a sealed list of them at its end.

The list makes an index a matter of speed: it can be made again from the packs alone.
"""

import hashlib
import struct
from collections.abc import Callable, Iterator
from typing import Final, Literal

import msgspec

from orlop.errors import Corrupt
from orlop.snapshots.seal import OVERHEAD, Seal

Kind = Literal["data", "tree"]

SIZE: Final = 16 << 20
"""Bytes at which a pack is full."""
MOST_BLOBS: Final = 1 << 14
"""Blobs in a pack at most: of very small files a full pack would take a hundred megabytes while it is made."""
_PIECE: Final = 1 << 20
_NUMBERS: Final = {("data", False): 0, ("tree", False): 1, ("data", True): 2, ("tree", True): 3}
_NAMES: Final = {number: what for what, number in _NUMBERS.items()}
_PLAIN = struct.Struct("<BI32s")
_COMPRESSED = struct.Struct("<BII32s")
_TAIL = struct.Struct("<I")


class Blob(msgspec.Struct, frozen=True, gc=False):
    """A blob in a pack: ``id`` is the SHA-256 of its content, ``offset`` and ``length`` say where its sealed form is.

    ``uncompressed`` is the length of the content, or 0 for one that was sealed without compression.
    """

    kind: Kind
    id: bytes
    offset: int
    length: int
    uncompressed: int

    @property
    def size(self) -> int:
        """Bytes of content."""
        return self.uncompressed or self.length - OVERHEAD


class PackBuilder:
    """A pack that is being filled, with blobs of one kind: trees are read often, and together."""

    def __init__(self, kind: Kind) -> None:
        self.kind: Kind = kind
        self.blobs: list[Blob] = []
        # Pieces of about a megabyte: thousands of small blobs would each be hashed and written by a call, and one
        # buffer would leave holes in the memory each time that it grows.
        self._pieces = [bytearray()]
        self.size = 0

    def add(self, blob: bytes, sealed: bytes | memoryview, uncompressed: int) -> None:
        """Put a sealed blob at the end."""
        self.blobs.append(Blob(self.kind, blob, self.size, len(sealed), uncompressed))
        if len(self._pieces[-1]) >= _PIECE:
            self._pieces.append(bytearray())
        self._pieces[-1] += sealed
        self.size += len(sealed)

    @property
    def is_full(self) -> bool:
        """Whether it is time to store it."""
        return self.size >= SIZE or len(self.blobs) >= MOST_BLOBS

    def finish(self, seal: Seal) -> tuple[str, Iterator[bytes]]:
        """The name of the pack (SHA-256 of all of it) and its bytes; nothing can be added any more."""
        listing = seal.seal(b"".join(map(_entry, self.blobs)))
        self._pieces.append(bytearray(listing + _TAIL.pack(len(listing))))
        hashed = hashlib.sha256()
        for piece in self._pieces:
            hashed.update(piece)
        return hashed.hexdigest(), map(bytes, self._pieces)


def pack_key(pack: str) -> str:
    """The object in which the pack is."""
    return f"data/{pack[:2]}/{pack}"


def listing(size: int, read: Callable[[int, int], bytes], seal: Seal, name: str) -> list[Blob]:
    """The blobs of a pack of ``size`` bytes, from its own list; ``read(start, end)`` gives bytes of it.

    Raises `Corrupt` naming ``name``.
    """
    if size < _TAIL.size + OVERHEAD:
        raise Corrupt(f"pack {name!r} is too short")
    (length,) = _TAIL.unpack(read(size - _TAIL.size, size))
    if not OVERHEAD <= length <= size - _TAIL.size:
        raise Corrupt(f"pack {name!r} has no list of its blobs")
    try:
        plain = seal.open(read(size - _TAIL.size - length, size - _TAIL.size))
        return list(_entries(plain))
    except (Corrupt, struct.error, KeyError):
        raise Corrupt(f"the list of blobs in pack {name!r} is damaged") from None


def _entry(blob: Blob) -> bytes:
    number = _NUMBERS[blob.kind, bool(blob.uncompressed)]
    if blob.uncompressed:
        return _COMPRESSED.pack(number, blob.length, blob.uncompressed, blob.id)
    return _PLAIN.pack(number, blob.length, blob.id)


def _entries(plain: bytes) -> Iterator[Blob]:
    place = offset = 0
    while place < len(plain):
        kind, compressed = _NAMES[plain[place]]
        if compressed:
            _, length, uncompressed, blob = _COMPRESSED.unpack_from(plain, place)
            place += _COMPRESSED.size
        else:
            _, length, blob = _PLAIN.unpack_from(plain, place)
            uncompressed, place = 0, place + _PLAIN.size
        yield Blob("tree" if kind == "tree" else "data", blob, offset, length, uncompressed)
        offset += length
