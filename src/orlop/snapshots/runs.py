"""A large file in runs: some blobs each, which are fetched together, or a long hole, of which nothing is fetched.

A hole shows in a repository as chunks of nothing but zeros, one of them as long as any: what was a hole was never read,
and cut at places of its own (`orlop.snapshots.chunks`). Zeros that somebody wrote look the same, and lose nothing by
becoming a hole.
"""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from orlop.snapshots.chunks import MAX
from orlop.snapshots.packs import Blob
from orlop.snapshots.seal import OVERHEAD

_RUN: Final = 4 << 20
"""Bytes of content in a run, unless a single blob is longer."""
_BLOCK: Final = 4096
"""What a filesystem can leave out is whole blocks of this."""
Place = tuple[str, Blob]
"""A blob, and the pack it is in."""


@dataclass(frozen=True, slots=True)
class Run:
    """The bytes of a file from ``start`` to ``end``, and the blobs they are: none of a hole."""

    start: int
    end: int
    places: tuple[Place, ...]

    @property
    def is_hole(self) -> bool:
        """Whether there is nothing to be fetched."""
        return not self.places


def may_have_holes(content: Sequence[str]) -> bool:
    """Whether a file with these chunks may have a long hole: of nearly every file this says no, and quickly."""
    return _zeros(MAX).hex() in content


def split(content: Sequence[str], places: Sequence[Place], *, holes: bool = True) -> Iterator[Run]:
    """A file's runs in order; ``places`` are where the blobs of its ``content`` are. Without ``holes`` none is one."""
    if not holes or not may_have_holes(content):
        yield from _runs(places, 0)
        return
    start, size = 0, sum(blob.size for _, blob in places)
    for are_zeros, group in itertools.groupby(places, _is_zeros):
        some = list(group)
        end = start + sum(blob.size for _, blob in some)
        if are_zeros and start % _BLOCK == 0 and (end % _BLOCK == 0 or end == size):
            yield Run(start, end, ())
        else:
            yield from _runs(some, start)
        start = end


def _runs(places: Sequence[Place], start: int) -> Iterator[Run]:
    run: list[Place] = []
    end = start
    for place in places:
        if run and end - start + place[1].size > _RUN:
            yield Run(start, end, tuple(run))
            run, start = [], end
        run.append(place)
        end += place[1].size
    if run:
        yield Run(start, end, tuple(run))


def _is_zeros(place: Place) -> bool:
    blob = place[1]
    # Few chunks become as short as zeros do, and only those are compared.
    return blob.size <= MAX and blob.length < OVERHEAD + 64 + blob.size // 1024 and blob.id == _zeros(blob.size)


@lru_cache(64)
def _zeros(size: int) -> bytes:
    """The id of so many zeros."""
    return hashlib.sha256(bytes(size)).digest()
