"""Files that are given away to be read, and what comes back: small ones in batches to processes, large ones to threads.

What comes back fills the places of a folder that is on its way to be a tree.
"""

import os
import queue
from typing import Final, Self

from orlop.snapshots import nodes
from orlop.snapshots.changes import Changed
from orlop.snapshots.growing import GONE, Folder, Growing
from orlop.snapshots.largefiles import Large, LargeFiles
from orlop.snapshots.nodes import Node
from orlop.snapshots.saved import Saved
from orlop.snapshots.worker import Done, Job, Reader, Start
from orlop.snapshots.workers import Workers
from orlop.snapshots.writer import Writer

_BATCH: Final = 256
_BATCH_BYTES: Final = 2 << 20
_LARGE_AHEAD: Final = 256

_Place = tuple[Folder, int, bytes, "Node | None"]
"""Where a file belongs: the folder, its place there, its name, and what the parent has of it."""


class Reads:
    """Reads files beneath ``root``; a context, for one thread. ``saved`` counts them, ``growing`` gets their nodes."""

    def __init__(self, writer: Writer, root: int, growing: Growing, saved: Saved, changed: Changed | None,
                 *, count: int) -> None:  # fmt: skip
        self._writer, self._growing, self._saved = writer, growing, saved
        self._results: queue.SimpleQueue[Done | Large | BaseException] = queue.SimpleQueue()
        start = Start(writer.repository.sealing_keys, writer.compress, root)
        self._own = Reader(writer.repository.seal, root, compress=writer.compress)
        self._workers = Workers("orlop.snapshots.worker", start, root, Done, self._results.put, count=count)
        self._large = LargeFiles(writer, root, self._results.put, changed, threads=count)
        self._places: dict[int, list[_Place]] = {}
        self._number = 0
        self._batch: list[_Place] = []
        self._batch_bytes = 0
        self._large_at_work = 0

    def __enter__(self) -> Self:
        self._workers.__enter__()
        self._large.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._large.__exit__(*error)
        finally:
            self._workers.__exit__(*error)

    # -- what is given away

    def small(self, folder: Folder, place: int, name: bytes, old: Node | None, size: int) -> None:
        """Read a file of about ``size`` bytes with others like it."""
        self._batch.append((folder, place, name, old))
        self._batch_bytes += size
        if len(self._batch) >= _BATCH or self._batch_bytes >= _BATCH_BYTES:
            self._send()

    def large(self, folder: Folder, place: int, name: bytes, old: Node | None) -> None:
        """Read a file on its own, in pieces."""
        self._large_at_work += 1
        number = self._next([(folder, place, name, old)])
        self._large.submit(Large(number, folder.path, name, old if old is not None and old.type == "file" else None))

    def go_on(self) -> None:
        """Take what has come back; wait for some of it while enough is given away."""
        self._take(wait=False)
        while self._workers.are_full or self._large_at_work >= _LARGE_AHEAD:
            self._take(wait=True)

    def finish(self) -> None:
        """Wait for all of it."""
        self._send(last=True)
        while self._places:
            self._take(wait=True)

    def _send(self, *, last: bool = False) -> None:
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        if not batch:
            return
        job = Job(self._next(batch), [])
        for folder, _, name, _ in batch:
            if not job.folders or job.folders[-1][0] != folder.path:
                job.folders.append((folder.path, []))
            job.folders[-1][1].append(name)
        if last and not self._workers.are_started:
            # For a few files this is quicker than to start a process.
            self._took(self._own.done(job))
        else:
            while self._workers.are_full:
                self._take(wait=True)
            self._workers.submit(job)

    def _next(self, places: list[_Place]) -> int:
        self._number += 1
        self._places[self._number] = places
        return self._number

    # -- what comes back

    def _take(self, *, wait: bool) -> None:
        while self._places and (wait or not self._results.empty()):
            result = self._results.get()
            wait = False
            if isinstance(result, BaseException):
                raise result
            if isinstance(result, Done):
                self._workers.received(result)
                self._took(result)
            else:
                self._took_large(result)

    def _took(self, done: Done) -> None:
        places = self._places.pop(done.number)
        self._writer.add_small([(r.blob, r.length, r.uncompressed) for r in done.files if r.length], done.sealed)
        for (folder, place, name, old), read in zip(places, done.files, strict=True):
            if read.error is not None:
                self._not_read(folder, place, name, old, read.error)
                continue
            self._is_read(folder, place, name, old, read.node, read.size, steady=read.steady)

    def _not_read(self, folder: Folder, place: int, name: bytes, old: Node | None, error: int) -> None:
        if error == 0:  # it has grown
            self.large(folder, place, name, old)
            return
        self._saved.lose(folder.beneath(name), OSError(error, _reason(error)))
        self._growing.fill(folder, place, GONE)

    def _took_large(self, file: Large) -> None:
        self._large_at_work -= 1
        ((folder, place, name, old),) = self._places.pop(file.number)
        if file.error is not None:
            self._saved.lose(folder.beneath(name), file.error)
            self._growing.fill(folder, place, GONE)
            return
        if file.contradiction:
            why = "blocks that were said to be unchanged differ from the parent's"
            self._saved.note(folder.beneath(name), "contradiction", why)
        self._is_read(folder, place, name, old, file.node, file.size, steady=file.steady)

    def _is_read(self, folder: Folder, place: int, name: bytes, old: Node | None, node: bytes, size: int,
                 *, steady: bool) -> None:  # fmt: skip
        if not steady:
            self._saved.note(folder.beneath(name), "changed", "it was written while it was read")
        self._saved.size += size
        if old is not None:
            self._saved.audit(folder.beneath(name), old, node)
        # A folder in which everything is as the parent has it is as it was, although some of it was read again.
        self._growing.fill(folder, place, old if old is not None and nodes.encode(old) == node else node)


def _reason(code: int) -> str:
    return os.strerror(code) if code > 0 else "it is no file any more"
