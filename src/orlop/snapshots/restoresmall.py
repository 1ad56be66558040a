"""Small files out of a repository, many at a time: what they need is fetched ahead, and processes make them.

A store in another town answers after as long as a hundred files take to be made, so several batches are on their way.
"""

import queue
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Self

from orlop.snapshots import ahead, ranges
from orlop.snapshots.packs import Blob
from orlop.snapshots.report import Problem
from orlop.snapshots.repository import Repository
from orlop.snapshots.restoreworker import Done, Item, Job, Made, Maker, Start
from orlop.snapshots.workers import Workers

_BATCH: Final = 256
_BATCH_BYTES: Final = 2 << 20
_AHEAD: Final = ahead.PARTS
"""Batches that are fetched or wait for a process."""

Told = Callable[[bytes, int, Problem | None], None]
"""Called with a file's path, its size, and what was wrong with it."""


@dataclass(slots=True)
class _Batch:
    """Files of which one job will be made: folder, path, item, blob."""

    files: list[tuple[bytes, bytes, Item, Blob | None]] = field(default_factory=list)
    size: int = 0

    @property
    def is_full(self) -> bool:
        return len(self.files) >= _BATCH or self.size >= _BATCH_BYTES


class SmallRestores:
    """Makes small files; a context. ``told`` is called in the thread that calls this."""

    def __init__(self, repository: Repository, root: int, told: Told, *, count: int) -> None:
        self._repository, self._root, self._told = repository, root, told
        self._results: queue.SimpleQueue[Done | BaseException] = queue.SimpleQueue()
        start = Start(repository.sealing_keys, root)
        self._workers = Workers("orlop.snapshots.restoreworker", start, root, Done, self._results.put, count=count)
        self._fetchers = ThreadPoolExecutor(ahead.PARTS, thread_name_prefix="fetch")
        self._batch = _Batch()
        self._fetching: deque[tuple[Job, list[Future[bytes]]]] = deque()
        self._at_work: dict[int, list[bytes]] = {}
        self._number = 0

    def __enter__(self) -> Self:
        self._workers.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._workers.__exit__(*error)
        self._fetchers.shutdown(cancel_futures=True)

    def submit(self, folder: bytes, path: bytes, item: Item, blob: Blob | None) -> None:
        """Make the file ``item`` of ``folder``, or begin to."""
        self._batch.files.append((folder, path, item, blob))
        self._batch.size += blob.length if blob is not None else 0
        if self._batch.is_full:
            self._fetch()
            self.go_on()
            while len(self._fetching) > _AHEAD:
                self._give()

    def go_on(self) -> None:
        """Give on what has been fetched, and tell what has been made; waits for nothing that takes long."""
        while self._fetching and not self._workers.are_full and all(part.done() for part in self._fetching[0][1]):
            self._give()
        while self._at_work and not self._results.empty():
            self._take()

    def finish(self) -> None:
        """Wait for all of them."""
        if self._batch.files:
            self._fetch()
        if len(self._fetching) == 1 and not self._workers.are_started:
            # For a few files this is quicker than to start a process.
            done = Maker(self._repository.seal, self._root).done(self._fetched())
            self._tell(self._at_work.pop(done.number), done.files)
            return
        while self._fetching:
            self._give()
        while self._at_work:
            self._take()

    def _fetch(self) -> None:
        """Ask for parts of packs as they are: one buffer costs less than hundreds of blobs."""
        batch, self._batch = self._batch, _Batch()
        self._number += 1
        job = Job(self._number, [], [])
        for folder, _, item, _ in batch.files:
            if not job.folders or job.folders[-1][0] != folder:
                job.folders.append((folder, []))
            job.folders[-1][1].append(item)
        items = [(item, blob) for _, _, item, blob in batch.files if blob is not None]
        parts = list(ranges.together((item.pack, blob) for item, blob in items))
        where = {(p.pack, blob.offset): (number, p.start) for number, p in enumerate(parts) for blob in p.blobs}
        for item, blob in items:
            item.part, start = where[item.pack, blob.offset]
            item.start = blob.offset - start
        self._at_work[job.number] = [path for _, path, _, _ in batch.files]
        self._fetching.append((job, [self._fetchers.submit(self._read, part) for part in parts]))

    def _read(self, part: ranges.Range) -> bytes:
        return ranges.bytes_of(self._repository.store, part)

    def _give(self) -> None:
        """Give the first batch to a process, when it is there and one has room."""
        job = self._fetched()
        while self._workers.are_full:
            self._take()
        self._workers.submit(job)

    def _fetched(self) -> Job:
        job, parts = self._fetching.popleft()
        job.parts.extend(memoryview(part.result()) for part in parts)
        return job

    def _take(self) -> None:
        """Tell one result, when it is there."""
        result = self._results.get()
        if isinstance(result, BaseException):
            raise result
        self._workers.received(result)
        self._tell(self._at_work.pop(result.number), result.files)

    def _tell(self, paths: list[bytes], files: list[Made]) -> None:
        for path, made in zip(paths, files, strict=True):
            problem = None
            if made.problem:
                problem = Problem(path, "damaged" if made.problem == "damaged" else "unwritable", made.reason)
            self._told(path, made.size, problem)
