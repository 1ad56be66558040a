"""Waiting for what takes a moment: programs start, die and tell of things when the machine lets them."""

import time
from collections.abc import Callable


def eventually(true: Callable[[], object], seconds: float = 60) -> None:
    """Wait until ``true`` says so, on a busy machine as well; raises `AssertionError` after ``seconds``."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, f"still not so after {seconds} s"
        time.sleep(0.05)
