"""Work in a thread of its own: one that has gone into another namespace does not come back."""

import threading
from collections.abc import Callable


def in_a_thread(work: Callable[[], int | None], name: str) -> int | None:
    """What ``work`` returns, or the `OSError` that it raises; the thread does nothing else before it ends."""
    found: list[int | None] = []
    failed: list[OSError] = []

    def run() -> None:
        try:
            found.append(work())
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=run, name=name)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]
