"""Large files out of a repository: their parts are read and opened by threads, in any order, each in its place."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Self

from orlop.errors import Corrupt
from orlop.snapshots import metadata, ranges, source, target
from orlop.snapshots.nodes import Node
from orlop.snapshots.packs import Blob
from orlop.snapshots.report import Problem
from orlop.snapshots.repository import Repository, opened

_RUN: Final = 4 << 20
"""Bytes of content that one thread makes at a time, unless a single blob is longer."""
_AHEAD: Final = 2
Place = tuple[str, Blob]


class LargeRestores:
    """Makes large files, one after another; a context."""

    def __init__(self, repository: Repository, root: int, *, threads: int) -> None:
        self._repository, self._root = repository, root
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="restore")
        self._room = threading.BoundedSemaphore(_AHEAD * threads)
        self._done: list[tuple[bytes, int, Problem | None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    def submit(self, path: bytes, folder: bytes, name: bytes, node: Node, places: list[Place]) -> None:
        """Make the file; what became of it is told by `finish`."""
        problem = None
        try:
            refused = self._make(folder, name, node, places)
            if refused:
                problem = Problem(path, "unwritable", "; ".join(refused))
        except Corrupt as error:
            problem = Problem(path, "damaged", str(error))
        except OSError as error:
            problem = Problem(path, "unwritable", str(error))
        self._done.append((path, sum(blob.size for _, blob in places), problem))

    def finish(self) -> Iterator[tuple[bytes, int, Problem | None]]:
        """Every file, its size, and what was wrong with it."""
        yield from self._done

    def _make(self, folder: bytes, name: bytes, node: Node, places: list[Place]) -> list[str]:
        size = sum(blob.size for _, blob in places)
        with source.beneath(self._root, folder) as there, target.NewFile(there, name, size) as fd:
            parts = [self._start(fd, start, run) for start, run in runs(places)]
            errors = [error for part in parts if (error := part.exception()) is not None]
            if errors:
                raise errors[0]
            return metadata.put_back(node, fd)

    def _start(self, fd: int, start: int, run: list[Place]) -> Future[None]:
        self._room.acquire()
        part = self._threads.submit(self._part, fd, start, run)
        part.add_done_callback(lambda _: self._room.release())
        return part

    def _part(self, fd: int, start: int, run: list[Place]) -> None:
        sealed: dict[bytes, memoryview] = {}
        for part in ranges.together(run):
            sealed.update(ranges.read(self._repository.store, part))
        for pack, blob in run:
            target.fill(fd, opened(self._repository.seal, sealed[blob.id], blob, pack), start)
            start += blob.size


def runs(places: list[Place]) -> Iterator[tuple[int, list[Place]]]:
    """The blobs in turn, some at a time, with the place of the first in the file."""
    run: list[Place] = []
    start = length = 0
    for place in places:
        if run and length + place[1].size > _RUN:
            yield start, run
            run, start, length = [], start + length, 0
        run.append(place)
        length += place[1].size
    if run:
        yield start, run
