"""Many questions to a store: a few are under way at once, for one in another town takes its time over each."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

MOST = 8
"""Questions to a store at once, and so answers in memory; 1 for a test that decides what comes after what."""
PARTS = 16
"""Parts of packs that a restore asks for at once: a megabyte or two each, which half as many do not fetch in time."""

Q = TypeVar("Q")
A = TypeVar("A")


@contextmanager
def beside(ask: Callable[[], A]) -> Iterator[Future[A]]:
    """Ask while the body of the context does something else, and has not to wait for it; leaving the context waits."""
    with ThreadPoolExecutor(1, thread_name_prefix="beside") as thread:
        answer = thread.submit(ask)
        if MOST == 1:
            answer.exception()
        yield answer


def asked(ask: Callable[[Q], A], questions: Iterable[Q], most: int | None = None) -> Iterator[tuple[Q, Future[A]]]:
    """Each question with its answer, or the error that ``result`` raises, in their order; fewer at once if ``most``."""
    most = min(most or MOST, MOST)
    underway: deque[tuple[Q, Future[A]]] = deque()
    threads = ThreadPoolExecutor(most, thread_name_prefix="asked")
    try:
        for question in questions:
            underway.append((question, threads.submit(ask, question)))
            if len(underway) == most:
                yield underway.popleft()
        yield from underway
    finally:
        threads.shutdown(cancel_futures=True)
