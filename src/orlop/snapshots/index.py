"""Which blobs a repository has, and in which pack: in memory, about 50 bytes for each (`orlop.snapshots.table`)."""

import binascii
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from orlop.errors import Corrupt
from orlop.snapshots.documents import BlobEntry, PackEntry
from orlop.snapshots.packs import Blob, Kind
from orlop.snapshots.seal import OVERHEAD
from orlop.snapshots.table import Table

_PLACE: Final = struct.Struct("<IIII")
_RECORD: Final = 32 + _PLACE.size
_AT_ONCE: Final = 1 << 17
"""Blobs that are sorted in at once while an index is loaded: about 12 MB until then."""


class Index:
    """Where every blob is. Many may read, one loads."""

    def __init__(self) -> None:
        self._packs: list[bytes] = []
        self._numbers: dict[bytes, int] = {}
        self._loading: dict[str, list[bytes]] = {"data": [], "tree": []}
        self._tables: dict[Kind, Table] = {"data": Table(_PLACE.size), "tree": Table(_PLACE.size)}

    def __len__(self) -> int:
        return sum(len(table) for table in self._tables.values())

    def find(self, kind: Kind, blob: bytes) -> tuple[str, Blob] | None:
        """The pack a blob is in, and where; None if the repository does not have it."""
        value = self._tables[kind].get(blob)
        if value is None:
            return None
        pack, offset, length, uncompressed = _PLACE.unpack(value)
        return self._packs[pack].hex(), Blob(kind, blob, offset, length, uncompressed)

    def has(self, kind: Kind, blob: bytes) -> bool:
        """Whether the repository has the blob."""
        return self._tables[kind].get(blob) is not None

    def pack_number(self, kind: Kind, blob: bytes) -> int | None:
        """The number of the pack with the blob, for `pack_name`; None if the repository does not have it."""
        value = self._tables[kind].get(blob)
        return None if value is None else int.from_bytes(value[:4], "little")

    def pack_numbers(self, kind: Kind, blobs: Iterable[bytes]) -> list[int | None]:
        """The same for many blobs."""
        values = self._tables[kind].get_all(blobs)
        return [None if value is None else int.from_bytes(value[:4], "little") for value in values]

    def packs_and_sizes(self, kind: Kind, blobs: Iterable[bytes]) -> list[tuple[int, int] | None]:
        """The numbers of the packs with many blobs, and the bytes of their content."""
        found: list[tuple[int, int] | None] = []
        for value in self._tables[kind].get_all(blobs):
            pack, _, length, uncompressed = _PLACE.unpack(value) if value is not None else (0, 0, 0, 0)
            found.append(None if value is None else (pack, uncompressed or length - OVERHEAD))
        return found

    def pack_name(self, number: int) -> str:
        """The pack of that number."""
        return self._packs[number].hex()

    def shares_packs(self, other: "Index") -> bool:
        """Whether there is a pack that both have."""
        return not self._numbers.keys().isdisjoint(other._numbers.keys())

    def load(self, name: str, packs: Iterable[PackEntry]) -> None:
        """The packs of the index file ``name``; raises `Corrupt` naming it. `finish` is called after the last one."""
        for pack in packs:
            self._read(pack, name, self._loading)
        if sum(map(len, self._loading.values())) >= _AT_ONCE:
            self.finish()

    def finish(self) -> None:
        """Everything that was loaded can be found."""
        for kind, table in self._tables.items():
            table.load(self._loading[kind])
        self._loading = {"data": [], "tree": []}

    # -- as it is kept by `orlop.snapshots.indexcache`

    def ids(self) -> Sequence[bytes]:
        """Every pack, as 32 bytes; its place here is its number."""
        return self._packs

    def runs(self) -> Iterator[tuple[Kind, bytes, bytes]]:
        """All blobs, in pieces of one kind: ids in order, and their values, which name packs by number."""
        for kind, table in self._tables.items():
            for ids, values in table.runs():
                yield kind, ids, values

    def know(self, packs: bytes) -> None:
        """What `ids` gave, joined: to an index that is empty."""
        self._packs = [packs[start : start + 32] for start in range(0, len(packs), 32)]
        self._numbers = {pack: number for number, pack in enumerate(self._packs)}

    def take(self, kind: Kind, ids: bytes, values: bytes) -> None:
        """One of those pieces."""
        self._tables[kind].take(ids, values)

    def _read(self, pack: PackEntry, name: str, records: dict[str, list[bytes]]) -> None:
        number, place, unhexlify = self._number(_pack_id(pack, name)), _PLACE.pack, binascii.unhexlify
        try:
            for e in pack.blobs or ():
                record = unhexlify(e.id) + place(number, e.offset, e.length, e.uncompressed_length)
                if len(record) != _RECORD:
                    raise _impossible(pack, name)
                records[e.type].append(record)
        except (ValueError, KeyError, struct.error):
            raise _impossible(pack, name) from None

    def blobs(self, kind: Kind) -> Iterator[bytes]:
        """The ids of all blobs of a kind."""
        return (blob for blob, _ in self._tables[kind].items())

    def packs(self) -> list[str]:
        """Every pack that was added."""
        return [pack.hex() for pack in self._packs]

    def _number(self, pack: bytes) -> int:
        number = self._numbers.setdefault(pack, len(self._packs))
        if number == len(self._packs):
            self._packs.append(pack)
        return number


def entry(pack: str, blobs: Iterable[Blob]) -> PackEntry:
    """A pack as an index file has it."""
    return PackEntry(pack, [BlobEntry(b.id.hex(), b.kind, b.offset, b.length, b.uncompressed) for b in blobs])


def blobs(pack: PackEntry, name: str) -> list[Blob]:
    """The blobs of such a pack; raises `Corrupt` naming the index file ``name``."""
    _pack_id(pack, name)
    try:
        return [_blob(e) for e in pack.blobs or ()]
    except ValueError:
        raise _impossible(pack, name) from None


def _pack_id(pack: PackEntry, name: str) -> bytes:
    try:
        number = binascii.unhexlify(pack.id)
    except ValueError:
        raise _impossible(pack, name) from None
    if len(number) != 32:
        raise _impossible(pack, name)
    return number


def _impossible(pack: PackEntry, name: str) -> Corrupt:
    return Corrupt(f"index {name!r} has an impossible entry for pack {pack.id!r}")


def _blob(e: BlobEntry) -> Blob:
    blob = binascii.unhexlify(e.id)
    numbers_fit = all(0 <= number < 1 << 32 for number in (e.offset, e.length, e.uncompressed_length))
    if len(blob) != 32 or not numbers_fit or e.type not in ("data", "tree"):
        raise ValueError(e.id)
    return Blob("tree" if e.type == "tree" else "data", blob, e.offset, e.length, e.uncompressed_length)
