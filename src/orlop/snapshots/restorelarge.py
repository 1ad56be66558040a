"""Large files out of a repository: their parts are read and opened by threads, in any order, each in its place.

The threads work on several files at once; whoever makes the last part of one completes it.
"""

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Final, Self

from orlop.errors import Corrupt
from orlop.snapshots import ahead, metadata, ranges, runs, source, target
from orlop.snapshots.nodes import Node
from orlop.snapshots.report import Problem
from orlop.snapshots.repository import Repository, opened
from orlop.snapshots.runs import Place, Run

_AHEAD: Final = ahead.PARTS
"""Runs that are fetched or made: a store in another town answers after as long as several of them take to be made."""
_Sealed = Future[dict[bytes, memoryview]]
"""A range of a pack on its way: blobs by id."""


class LargeRestores:
    """Makes large files, some at the same time; a context. What ends before they are made leaves none of them."""

    def __init__(self, repository: Repository, root: int, *, threads: int) -> None:
        self._store, self._seal, self._root = repository.store, repository.seal, root
        # One more than there are processors: of those that write to the same file all but one wait.
        self._threads = ThreadPoolExecutor(threads + 1, thread_name_prefix="restore")
        self._fetchers = ThreadPoolExecutor(ahead.PARTS, thread_name_prefix="fetch")
        self._room = threading.BoundedSemaphore(_AHEAD)
        self._underway: set[_File] = set()
        self._done: list[tuple[bytes, int, Problem | None]] = []
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # First those for whom others wait.
        self._fetchers.shutdown(cancel_futures=True)
        self._threads.shutdown(cancel_futures=True)
        for file in self._underway:
            file.give_up()

    def submit(self, path: bytes, folder: bytes, name: bytes, node: Node, places: list[Place]) -> None:
        """Make the file, or begin to; what became of it is told by `finish`.

        Raises what ended the work on an earlier one, such as `Unavailable`.
        """
        self._raise_failure()
        parts = list(runs.split(node.content or (), places))
        try:
            file = _File(self._root, path, folder, name, node, parts)
        except OSError as error:
            self._done.append((path, node.size, Problem(path, "unwritable", str(error))))
            return
        self._underway.add(file)
        for part in parts:
            if part.is_hole:
                continue
            self._room.acquire()
            self._raise_failure()
            wanted = [] if file.is_lost else ranges.together(part.places)
            fetched = [self._fetchers.submit(ranges.read, self._store, each) for each in wanted]
            self._threads.submit(self._part, file, part, fetched)
        self._one_ended(file)

    def finish(self) -> Iterator[tuple[bytes, int, Problem | None]]:
        """Every file, its size, and what was wrong with it."""
        self._threads.shutdown()
        self._raise_failure()
        yield from self._done

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _part(self, file: "_File", part: Run, fetched: list[_Sealed]) -> None:
        try:
            file.write(self._contents(part.places, fetched), part.start)
            self._one_ended(file)
        except BaseException as error:  # noqa: BLE001 - raised again by whoever gives or waits for work
            self._failure = error
        finally:
            self._room.release()

    def _one_ended(self, file: "_File") -> None:
        if file.part_ended():
            self._done.append((file.path, file.size, file.ended()))
            self._underway.discard(file)

    def _contents(self, places: Iterable[Place], fetched: list[_Sealed]) -> Iterator[bytes]:
        sealed = {blob: content for part in fetched for blob, content in part.result().items()}
        for pack, blob in places:
            yield opened(self._seal, sealed[blob.id], blob, pack)


class _File:
    """A file on its way; gone again if not all of it can be made."""

    def __init__(self, root: int, path: bytes, folder: bytes, name: bytes, node: Node, parts: list[Run]) -> None:
        self.path, self._node = path, node
        self.size = parts[-1].end if parts else 0
        # One more, that it is not complete before all of them are under way; holes are there from the beginning.
        self._missing = sum(not part.is_hole for part in parts) + 1
        self._error: Corrupt | OSError | None = None
        # The kernel lets one write to a file at a time, and those that wait there use a processor meanwhile.
        self._writing, self._counting = threading.Lock(), threading.Lock()
        with ExitStack() as made:
            there = made.enter_context(source.beneath(root, folder))
            self._fd = made.enter_context(target.NewFile(there, name, self.size))
            self._made = made.pop_all()

    @property
    def is_lost(self) -> bool:
        """Whether a part could not be made, so that no other is needed."""
        return self._error is not None

    def write(self, contents: Iterable[bytes], place: int) -> None:
        """Put the contents there, one after another; what goes wrong with them is what is wrong with the file."""
        try:
            for content in () if self.is_lost else contents:
                with self._writing:
                    target.fill(self._fd, content, place)
                place += len(content)
        except (Corrupt, OSError) as error:
            self._error = error

    def part_ended(self) -> bool:
        """One part less is missing; whether it was the last."""
        with self._counting:
            self._missing -= 1
            return self._missing == 0

    def ended(self) -> Problem | None:
        """All parts are there, or what was wrong."""
        refused: list[str] = []
        try:
            with self._made:
                if self._error is not None:
                    raise self._error
                refused = metadata.put_back(self._node, self._fd)
        except Corrupt as error:
            return Problem(self.path, "damaged", str(error))
        except (OSError, ValueError, OverflowError) as error:  # the latter two: numbers that no kernel takes
            return Problem(self.path, "unwritable", str(error))
        return Problem(self.path, "unwritable", "; ".join(refused)) if refused else None

    def give_up(self) -> None:
        """Not all parts will come."""
        self._error = self._error or OSError("it was not finished")
        self.ended()
