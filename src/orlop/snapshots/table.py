"""A table of SHA-256 ids with a few bytes each, small enough for many millions: what a blob costs is said here.

An entry takes 32 bytes of id and the bytes of its value (16 for a blob's place), and 1 or 2 bytes of directory.
A Python dictionary would take about 300. The newest entries are in a dictionary until there are enough to be sorted in.
"""

import bisect
import itertools
import operator
import struct
from array import array
from collections.abc import Iterable, Iterator
from typing import Final

_ID: Final = 32
_NEW: Final = 1 << 15
"""Entries in the dictionary at most; about 5 MB."""

_PIECE: Final = 1 << 12
"""Entries whose ids and values are cut apart at once."""
_LONGEST: Final = 1 << 18
"""Entries in a run that is made of two: for a moment both are in memory, and the new one twice."""


class Table:
    """Ids and fixed-size values. One thread writes; the first value of an id stays until `replace`."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._new: dict[bytes, bytes] = {}
        self._runs: list[_Run] = []

    def __len__(self) -> int:
        return len(self._new) + sum(len(run) for run in self._runs)

    def get(self, blob: bytes) -> bytes | None:
        """The value of an id, or None."""
        value = self._new.get(blob)
        if value is not None:
            return value
        for run in self._runs:
            value = run.get(blob)
            if value is not None:
                return value
        return None

    def get_all(self, blobs: Iterable[bytes]) -> list[bytes | None]:
        """The values of many ids, each as `get` has it."""
        if len(self._runs) != 1:
            return [self.get(blob) for blob in blobs]
        asked = list(blobs)
        found = self._runs[0].get_all(asked)
        if self._new:
            return [self._new.get(blob) if value is None else value for blob, value in zip(asked, found, strict=True)]
        return found

    def add(self, blob: bytes, value: bytes) -> bool:
        """Remember the value; False if the id is there already, which then keeps its own.

        Raises `ValueError` for what is no id.
        """
        if len(blob) != _ID:
            raise ValueError(f"{blob.hex()!r} is no id")
        if self.get(blob) is not None:
            return False
        self._new[blob] = value
        if len(self._new) >= _NEW:
            self._sort_in()
        return True

    def load(self, records: list[bytes]) -> None:
        """Many at once, each an id and its value in one; of an id that comes twice, one value is taken.

        An id that was there before keeps its own.
        """
        if self._runs and len(records) <= _NEW:
            for record in records:
                self.add(record[:_ID], record[_ID:])
            return
        self._sort_all_in(records)

    def runs(self) -> Iterator[tuple[bytes, bytes]]:
        """Everything, as `take` takes it: ids in order, and their values, of as many entries at once as a run has."""
        if self._new:
            self._sort_all_in([*map(b"".join, self._new.items())])
            self._new = {}
        for run in self._runs:
            yield run.ids, run.values

    def take(self, ids: bytes, values: bytes) -> None:
        """One of those, which has no id that is here."""
        self._runs = [*self._runs, _Run(ids, values, self._width)]

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every id with its value, in no order."""
        yield from list(self._new.items())
        for run in list(self._runs):
            yield from run.items()

    def _sort_in(self) -> None:
        items = sorted(self._new.items())
        run = _Run(b"".join(key for key, _ in items), b"".join(value for _, value in items), self._width)
        self._add_run(run)
        # In this order: whoever reads at the same time finds every entry in one of them.
        self._new = {}

    def _sort_all_in(self, records: list[bytes]) -> None:
        # One sort of all is quicker than to put runs together entry by entry.
        runs = list(self._runs)
        while runs and len(runs[-1]) + len(records) <= _LONGEST:
            records = [*map(b"".join, runs.pop().items()), *records]
        if records:
            runs.append(_Run(*_sorted(records), self._width))
        self._runs = runs

    def _add_run(self, run: "_Run") -> None:
        # Runs of about one size are put together, so that there are few of them: each is at least twice the next.
        runs = list(self._runs)
        while runs and len(runs[-1]) < 2 * len(run) and len(runs[-1]) + len(run) <= _LONGEST:
            run = _merged(runs.pop(), run, self._width)
        self._runs = [*runs, run]


def _sorted(records: list[bytes]) -> tuple[bytes, bytes]:
    """All ids in order, and all their values; of equal ids the first one's."""
    # By the whole record, which is quicker than by a part of it, and wrong only where ids are equal: that is rare.
    by_id = sorted(records)
    ids, values, last = list[bytes](), list[bytes](), b""
    for start in range(0, len(by_id), _PIECE):
        # Cut and joined by pieces: the parts of all at once would take more memory than everything else here.
        some = by_id[start : start + _PIECE]
        heads = [record[:_ID] for record in some]
        if heads[0] == last or any(map(operator.eq, heads, itertools.islice(heads, 1, None))):
            first = {record[:_ID]: record for record in reversed(records)}
            return _sorted(list(first.values()))
        ids.append(b"".join(heads))
        values.append(b"".join([record[_ID:] for record in some]))
        last = heads[-1]
    return b"".join(ids), b"".join(values)


class _Run:
    """Sorted ids, their values, and where the ids with the same first bits begin."""

    def __init__(self, ids: bytes, values: bytes, width: int) -> None:
        self.ids, self.values, self._width = ids, values, width
        # About eight ids share a bucket: one look into the directory, one search in 256 bytes.
        self._bits = max(1, min(24, (len(self) // 8).bit_length()))
        self._starts = self._directory()

    def __len__(self) -> int:
        return len(self.ids) // _ID

    def get(self, blob: bytes) -> bytes | None:
        bucket = int.from_bytes(blob[:4], "big") >> (32 - self._bits)
        end, at = self._starts[bucket + 1] * _ID, self._starts[bucket] * _ID
        while (at := self.ids.find(blob, at, end)) >= 0:
            number, odd = divmod(at, _ID)
            if not odd:
                return self.values[number * self._width : (number + 1) * self._width]
            at += 1
        return None

    def get_all(self, blobs: Iterable[bytes]) -> list[bytes | None]:
        # As `get`, without a call for each: an unchanged file costs little more than this.
        ids, values, width, starts = self.ids, self.values, self._width, self._starts
        shift, found = 32 - self._bits, list[bytes | None]()
        for blob in blobs:
            bucket = int.from_bytes(blob[:4], "big") >> shift
            at = ids.find(blob, starts[bucket] * _ID, starts[bucket + 1] * _ID)
            number, odd = divmod(at, _ID)  # of -1, too, something is left over
            found.append(self.get(blob) if odd else values[number * width : (number + 1) * width])
        return found

    def place(self, blob: bytes, start: int) -> int:
        """How many ids are smaller; ``start`` of them are known to be."""
        bucket = int.from_bytes(blob[:4], "big") >> (32 - self._bits)
        first, end = max(start, self._starts[bucket]), self._starts[bucket + 1]
        return bisect.bisect_left(range(end), blob, lo=first, key=lambda n: self.ids[n * _ID : (n + 1) * _ID])

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        width = self._width
        for number in range(len(self)):
            yield self.ids[number * _ID : (number + 1) * _ID], self.values[number * width : (number + 1) * width]

    def _directory(self) -> "array[int]":
        shift = 32 - self._bits
        counts = array("I", bytes(4 * ((1 << self._bits) + 1)))
        for (first,) in struct.iter_unpack(">I28x", self.ids):
            counts[(first >> shift) + 1] += 1
        return array("I", itertools.accumulate(counts))


def _merged(older: _Run, newer: _Run, width: int) -> _Run:
    """Both runs as one, by cutting the older at the places of the newer's ids; the older's values stay."""
    old, ids, values, done = older.ids, bytearray(), bytearray(), 0
    for blob, value in newer.items():
        place = older.place(blob, done)
        ids += old[done * _ID : place * _ID]
        values += older.values[done * width : place * width]
        done = place
        if old[place * _ID : place * _ID + _ID] != blob:
            ids += blob
            values += value
    ids += old[done * _ID :]
    values += older.values[done * width :]
    return _Run(bytes(ids), bytes(values), width)
