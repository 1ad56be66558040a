"""Where files had long holes, as a repository still shows: chunks of nothing but zeros, one of them as long as any.

What was a hole was never read, and cut at places of its own (`orlop.snapshots.chunks`). Zeros that somebody wrote look
the same, and lose nothing by becoming a hole.
"""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final

from orlop.snapshots.chunks import MAX
from orlop.snapshots.restorelarge import Place, runs
from orlop.snapshots.seal import OVERHEAD

_BLOCK: Final = 4096
"""What a filesystem can leave out is whole blocks of this."""


def may_have(content: Sequence[str]) -> bool:
    """Whether a file with these chunks may have a long hole: of nearly every file this says no, and quickly."""
    return _zeros(MAX).hex() in content


def split(content: Sequence[str], places: list[Place]) -> Iterator[tuple[int, list[Place], bool]]:
    """A large file's blobs in turn: where some begin, the blobs to be read together, and whether they are a hole."""
    if not may_have(content):
        yield from ((start, run, False) for start, run in runs(places))
        return
    start, size = 0, sum(blob.size for _, blob in places)
    for are_zeros, group in itertools.groupby(places, _is_zeros):
        some = list(group)
        end = start + sum(blob.size for _, blob in some)
        if are_zeros and start % _BLOCK == 0 and (end % _BLOCK == 0 or end == size):
            yield start, some, True
        else:
            yield from ((start + place, run, False) for place, run in runs(some))
        start = end


def _is_zeros(place: Place) -> bool:
    blob = place[1]
    # Few chunks become as short as zeros do, and only those are compared.
    return blob.size <= MAX and blob.length < OVERHEAD + 64 + blob.size // 1024 and blob.id == _zeros(blob.size)


@lru_cache(64)
def _zeros(size: int) -> bytes:
    """The id of so many zeros."""
    return hashlib.sha256(bytes(size)).digest()
