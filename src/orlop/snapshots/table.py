"""A table of SHA-256 ids with a few bytes each, small enough for many millions: what a blob costs is said here.

An entry takes 32 bytes of id and the bytes of its value (16 for a blob's place), and 1 or 2 bytes of directory.
A Python dictionary would take about 300. The newest entries are in a dictionary until there are enough to be sorted in.
"""

import bisect
from array import array
from collections.abc import Iterator
from typing import Final

_ID: Final = 32
_NEW: Final = 1 << 15
"""Entries in the dictionary at most; about 5 MB."""


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

    def add(self, blob: bytes, value: bytes) -> bool:
        """Remember the value; False if the id is there already, which then keeps its own."""
        if self.get(blob) is not None:
            return False
        self._new[blob] = value
        if len(self._new) >= _NEW:
            self._sort_in()
        return True

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every id with its value, in no order."""
        yield from list(self._new.items())
        for run in list(self._runs):
            yield from run.items()

    def _sort_in(self) -> None:
        # Runs of about one size are put together, so that there are few of them: each is at least twice the next.
        items = sorted(self._new.items())
        run = _Run(b"".join(key for key, _ in items), b"".join(value for _, value in items), self._width)
        runs = list(self._runs)
        while runs and len(runs[-1]) < 2 * len(run):
            run = _merged(runs.pop(), run, self._width)
        # In this order: whoever reads at the same time finds every entry in one of them.
        self._runs = [*runs, run]
        self._new = {}


class _Run:
    """Sorted ids, their values, and where the ids with the same first bits begin."""

    def __init__(self, ids: bytes, values: bytes, width: int) -> None:
        self._ids, self._values, self._width = ids, values, width
        # About eight ids share a bucket: one look into the directory, one search in 256 bytes.
        self._bits = max(1, min(24, (len(self) // 8).bit_length()))
        self._starts = self._directory()

    def __len__(self) -> int:
        return len(self._ids) // _ID

    def get(self, blob: bytes) -> bytes | None:
        bucket = int.from_bytes(blob[:4], "big") >> (32 - self._bits)
        end, at = self._starts[bucket + 1] * _ID, self._starts[bucket] * _ID
        while (at := self._ids.find(blob, at, end)) >= 0:
            number, odd = divmod(at, _ID)
            if not odd:
                return self._values[number * self._width : (number + 1) * self._width]
            at += 1
        return None

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        width = self._width
        for number in range(len(self)):
            yield self._ids[number * _ID : (number + 1) * _ID], self._values[number * width : (number + 1) * width]

    def _directory(self) -> "array[int]":
        starts, shift, number = array("I"), 32 - self._bits, 0
        ids = self._ids
        for bucket in range(1 << self._bits):
            starts.append(number)
            number = self._first_beyond(bucket, number, shift, ids)
        starts.append(len(self))
        return starts

    def _first_beyond(self, bucket: int, number: int, shift: int, ids: bytes) -> int:
        while number < len(self) and int.from_bytes(ids[number * _ID : number * _ID + 4], "big") >> shift == bucket:
            number += 1
        return number


def _merged(left: _Run, right: _Run, width: int) -> _Run:
    """Both runs as one, by cutting the longer at the places of the shorter's ids."""
    ids, values = bytearray(), bytearray()
    done = 0
    for blob, value in right.items():
        place = bisect.bisect_left(range(len(left)), blob, lo=done, key=lambda n: left._ids[n * _ID : (n + 1) * _ID])
        ids += left._ids[done * _ID : place * _ID] + blob
        values += left._values[done * width : place * width] + value
        done = place
    ids += left._ids[done * _ID :]
    values += left._values[done * width :]
    return _Run(bytes(ids), bytes(values), width)
