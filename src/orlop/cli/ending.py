"""What a command does when it is asked to end before it has ended by itself."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def asked_to_end() -> Iterator[None]:
    """SIGTERM is an error like others, so that what was begun is undone."""

    def end(number: int, frame: object) -> None:
        del frame
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
