"""Large files into a repository: one thread reads and cuts, a few seal, and no more is in memory than agreed.

The reader goes on with the next file while the end of the last one is sealed. Hashing, compression and encryption of
large pieces leave the interpreter's lock alone, so threads are enough.
"""

import hashlib
import os
import queue
import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final, Self

from orlop.snapshots import changes, chunks, nodes, source, times
from orlop.snapshots.changes import Changed, Span
from orlop.snapshots.chunks import BLOCK, Before, Cutting, Zeros
from orlop.snapshots.nodes import Node
from orlop.snapshots.writer import Writer

_BUDGET: Final = 8 << 20
"""Bytes of content between reading and the packs."""
_BATCH: Final = 512 << 10
"""Bytes of content that a thread gets at once."""
_MOST: Final = 1024
_Chunk = tuple[str, int]
"""The id of a chunk, and how many bytes it is."""
_Parts = tuple[list[_Chunk], deque[Future[list[_Chunk]]]]
"""A file's chunks in order: those that are sealed, and the rest."""
_AUDIT_SHARE: Final = 1000
_AUDIT_MOST: Final = 64


@dataclass(frozen=True, slots=True)
class Large:
    """A file to be read, or one that was: then with a node, or the error why not.

    ``steady`` says that it did not change meanwhile. ``contradiction`` says that it differs from the parent where
    nothing should have changed; all of it was read then.
    """

    number: int
    folder: bytes
    name: bytes
    old: Node | None = None
    node: bytes = b""
    size: int = 0
    steady: bool = True
    contradiction: bool = False
    error: OSError | None = None


class LargeFiles:
    """Reads large files one after another; a context. ``put`` gets what is done."""

    def __init__(self, writer: Writer, root: int, put: Callable[[Large | BaseException], None],
                 changed: Changed | None, *, threads: int) -> None:  # fmt: skip
        self._writer, self._root, self._put, self._changed = writer, root, put, changed
        self._files: queue.SimpleQueue[Large | None] = queue.SimpleQueue()
        self._sealers = ThreadPoolExecutor(threads, thread_name_prefix="seal")
        self._reader: threading.Thread | None = None
        self._budget = _Budget(_BUDGET)
        self._zeros: dict[int, bytes] = {}
        self._stopped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._files.put(None)
        self._sealers.shutdown(cancel_futures=True)
        if self._reader is not None:
            self._budget.open()
            self._reader.join()

    def submit(self, file: Large) -> None:
        """Read a file when its turn comes."""
        if self._reader is None:
            self._reader = threading.Thread(target=self._run, name="large files", daemon=True)
            self._reader.start()
        self._files.put(file)

    def _run(self) -> None:
        while (file := self._files.get()) is not None and not self._stopped:
            try:
                self._begin(file)
            except BaseException as error:  # noqa: BLE001 - raised again by whoever takes the results
                self._put(error)

    def _begin(self, file: Large) -> None:
        """Read the file; what is known when its chunks are sealed as well is put then."""
        try:
            with source.beneath(self._root, file.folder) as folder, source.opened(folder, file.name) as (fd, status):
                parts, contradiction = self._content(file, fd, status)
                node = source.file_node(fd, file.name, status, 0)
                steady = source.is_same(status, os.fstat(fd))
        except OSError as error:
            self._put(Large(file.number, file.folder, file.name, error=error))
            return
        done = Large(file.number, file.folder, file.name, file.old, steady=steady, contradiction=contradiction)
        _Sealing(parts, lambda content: self._put(_with(done, node, content)), self._put).begin()

    def _content(self, file: Large, fd: int, status: os.stat_result) -> tuple[_Parts, bool]:
        old = _chunks(self._writer, file.old)
        cutting = self._cutting(file.old, old, fd, status)
        ranges = None
        if self._changed is not None and file.old is not None and old is not None:
            ranges = self._changed(_path(file), fd, file.old)
        whole = [Span(0, status.st_size)]
        if ranges is None or old is None:
            return self._read(_pieces(fd, whole, [], cutting)), False
        spans = changes.plan([size for _, size in old], ranges, status.st_size)
        if not _audit(fd, spans, old):
            return self._read(_pieces(fd, whole, [], cutting)), True
        return self._read(_pieces(fd, spans, old, cutting)), False

    def _cutting(self, node: Node | None, old: list[_Chunk] | None, fd: int, status: os.stat_result) -> Cutting:
        before = None
        if node is not None and old is not None:
            in_blocks = any(size == BLOCK for _, size in old[:-1])
            # Not for another owner or mode: these change the other time.
            rewritten = node.inode == status.st_ino and times.read(node.mtime) != status.st_mtime_ns
            before = Before(node.size, in_blocks, rewritten)
        return chunks.policy(status.st_size, os.pread(fd, chunks.HEAD, 0), before)

    def _read(self, pieces: Iterator[memoryview | Zeros | _Chunk]) -> _Parts:
        """The chunks in order; sealed and handed to the writer by others meanwhile."""
        found = list[_Chunk]()
        underway: deque[Future[list[_Chunk]]] = deque()
        for batch in _together(pieces):
            size = sum(len(piece) for piece in batch if isinstance(piece, bytes))
            self._budget.take(size)
            underway.append(self._sealers.submit(self._store, batch, size))
            while underway and underway[0].done():
                found += underway.popleft().result()
        return found, underway

    def _store(self, batch: list[bytes | Zeros | _Chunk], size: int) -> list[_Chunk]:
        try:
            return [self._chunk(piece) for piece in batch]
        finally:
            self._budget.give(size)

    def _chunk(self, piece: bytes | Zeros | _Chunk) -> _Chunk:
        if isinstance(piece, bytes):
            return self._writer.add("data", piece).hex(), len(piece)
        return (self._zero(piece.size).hex(), piece.size) if isinstance(piece, Zeros) else piece

    def _zero(self, size: int) -> bytes:
        if size not in self._zeros:
            self._zeros[size] = self._writer.add("data", bytes(size))
        return self._zeros[size]


class _Sealing:
    """Tells ``put`` the chunks when the last is sealed, in the thread that did that; or ``fail`` why not."""

    def __init__(self, parts: _Parts, put: Callable[[list[_Chunk]], None], fail: Callable[[BaseException], None],
                 ) -> None:  # fmt: skip
        self._found, self._underway = parts
        self._put, self._fail = put, fail
        self._missing, self._counting = len(self._underway) + 1, threading.Lock()

    def begin(self) -> None:
        """Waits for nothing; where nothing is under way any more, tells at once."""
        for part in list(self._underway):
            part.add_done_callback(self._one_more)
        self._one_more(None)

    def _one_more(self, _: object) -> None:
        with self._counting:
            self._missing -= 1
            if self._missing:
                return
        try:
            self._put(self._found + [chunk for part in self._underway for chunk in part.result()])
        except BaseException as error:  # noqa: BLE001 - also that a part was cancelled
            self._fail(error)


def _with(file: Large, node: Node, content: list[_Chunk]) -> Large:
    """The file, as it is stored."""
    size = sum(length for _, length in content)
    node.size, node.content = size, [blob for blob, _ in content]
    return replace(file, node=nodes.encode(node), size=size)


class _Budget:
    """So many bytes at once; one piece may always go."""

    def __init__(self, limit: int) -> None:
        self._limit, self._used = limit, 0
        self._changed = threading.Condition()

    def take(self, size: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._used == 0 or self._used + size <= self._limit)
            self._used += size

    def give(self, size: int) -> None:
        with self._changed:
            self._used -= size
            self._changed.notify_all()

    def open(self) -> None:
        """Nobody waits any more."""
        with self._changed:
            self._limit = 1 << 60
            self._changed.notify_all()


def _is(fd: int, start: int, size: int, blob: str) -> bool:
    """Whether these bytes of the file are the content of the blob."""
    return hashlib.sha256(os.pread(fd, size, start)).hexdigest() == blob


def _audit(fd: int, spans: list[Span], old: list[_Chunk]) -> bool:
    """Whether some chunks that are said to be unchanged, chosen at random, are."""
    starts = changes.places([size for _, size in old])
    kept = [number for span in spans for number in range(span.first, span.last)]
    chosen = random.sample(kept, min(len(kept), max(1, min(_AUDIT_MOST, len(kept) // _AUDIT_SHARE))))
    return all(_is(fd, starts[number], old[number][1], old[number][0]) for number in chosen)


def _chunks(writer: Writer, node: Node | None) -> list[_Chunk] | None:
    """The chunks of a file in the parent, with their sizes; None if one of them is not in the repository."""
    if node is None or node.content is None:
        return None
    sizes = writer.sizes("data", node.content)
    if None in sizes or sum(size or 0 for size in sizes) != node.size:
        return None
    return [(blob, size or 0) for blob, size in zip(node.content, sizes, strict=True)]


def _pieces(fd: int, spans: list[Span], old: list[_Chunk], cutting: Cutting) -> Iterator[memoryview | Zeros | _Chunk]:
    """What the file is made of, in order: old chunks where they stay, else pieces of content."""
    for span in spans:
        if span.stays:
            yield from old[span.first : span.last]
        else:
            yield from chunks.cut(fd, span.start, span.end, cutting)


def _together(pieces: Iterator[memoryview | Zeros | _Chunk]) -> Iterator[list[bytes | Zeros | _Chunk]]:
    """The pieces, some at a time: to hand a block of a database to another thread costs as much as to seal it."""
    batch, size = list[bytes | Zeros | _Chunk](), 0
    for piece in pieces:
        batch.append(bytes(piece) if isinstance(piece, memoryview) else piece)
        size += len(piece) if isinstance(piece, memoryview) else 0
        if size >= _BATCH or len(batch) >= _MOST:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _path(file: Large) -> bytes:
    return file.folder + b"/" + file.name if file.folder else file.name
