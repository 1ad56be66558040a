"""Many questions to a store: a few are under way at once, for one in another town takes its time over each."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

MOST = 8
"""Questions under way, and so answers in memory; 1 for a test that decides what comes after what."""

Q = TypeVar("Q")
A = TypeVar("A")


def asked(ask: Callable[[Q], A], questions: Sequence[Q]) -> Iterator[tuple[Q, Future[A]]]:
    """Each question with its answer, or the error that ``result`` raises, in their order."""
    if len(questions) <= 1 or MOST <= 1:
        return ((question, _answered(ask, question)) for question in questions)
    return _asked(ask, questions)


def _asked(ask: Callable[[Q], A], questions: Sequence[Q]) -> Iterator[tuple[Q, Future[A]]]:
    underway: deque[tuple[Q, Future[A]]] = deque()
    threads = ThreadPoolExecutor(MOST, thread_name_prefix="asked")
    try:
        for question in questions:
            underway.append((question, threads.submit(ask, question)))
            if len(underway) == MOST:
                yield underway.popleft()
        yield from underway
    finally:
        threads.shutdown(cancel_futures=True)


def _answered(ask: Callable[[Q], A], question: Q) -> Future[A]:
    answer: Future[A] = Future()
    try:
        answer.set_result(ask(question))
    except Exception as error:  # noqa: BLE001 - raised where the result is asked for
        answer.set_exception(error)
    return answer
