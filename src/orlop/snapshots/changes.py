"""Which chunks of a file can stay when somebody knows what was written: the rest is read, and only that."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from orlop.snapshots.nodes import Node

Changed = Callable[[bytes, int, Node], Iterable[tuple[int, int]] | None]
"""Who knows what changed: asked with a file's path in the folder, its open descriptor, and its node in the parent.

The answer are ranges (start, end) of bytes that may differ from what the parent has, or None for "cannot say": then the
whole file is read. A file that grew or shrank need not have that said.
"""


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes ``start`` to ``end``: the old chunks ``first`` to ``last`` (exclusive) stay, none if both are equal."""

    start: int
    end: int
    first: int = 0
    last: int = 0

    @property
    def stays(self) -> bool:
        """Whether nothing of it has to be read."""
        return self.last > self.first


def plan(sizes: Sequence[int], changed: Iterable[tuple[int, int]], size: int) -> list[Span]:
    """The file of now ``size`` bytes as spans in order, from the sizes of its old chunks and the changed ranges."""
    ranges = sorted((start, end) for start, end in changed if start < end)
    old = sum(sizes)
    if size != old:
        # The last chunk ended where the file did: what follows it is to be cut together with it.
        ranges.append((min(size, old - (sizes[-1] if sizes else 0)), max(size, old)))
        ranges.sort()
    # The chunks from ``first`` on, which begin at ``start``, are alike: they all stay, or none does.
    spans: list[Span] = []
    place = at = first = start = 0
    stayed = True
    for number, length in enumerate(sizes):
        end = place + length
        while at < len(ranges) and ranges[at][1] <= place:
            at += 1
        stays = at == len(ranges) or ranges[at][0] >= end
        if stays != stayed:
            spans.append(Span(start, min(place, size), first, number if stayed else first))
            first, start, stayed = number, place, stays
        place = end
    spans.append(Span(start, min(old, size), first, len(sizes) if stayed else first))
    spans.append(Span(old, size))
    return list(_joined(span for span in spans if span.start < span.end))


def _joined(spans: Iterable[Span]) -> Iterator[Span]:
    """What is to be read in one go, in one span: the file's new end belongs to the chunk before it."""
    read: Span | None = None
    for span in spans:
        if span.stays:
            yield from () if read is None else (read,)
            yield span
            read = None
        else:
            read = Span(span.start if read is None else read.start, span.end)
    if read is not None:
        yield read


def places(sizes: Sequence[int]) -> list[int]:
    """Where each chunk begins, and at last where the file ends."""
    return list(itertools.accumulate(sizes, initial=0))
