"""Memory that costs what memory costs: a guest's may have to be fetched from its host at the first touch.

Where the kernel reports free memory to the host that it runs on, the host takes it away, and whoever touches it next
waits: measured, 3 s for a gigabyte, which is more than a backup of it takes. What is measured would be whose memory
was taken away last. So while benchmarks run nothing is reported, and all that is free is touched before.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_REPORTED = Path("/sys/module/page_reporting/parameters/page_reporting_order")
_NEVER = "11"
"""One more than the kernel's largest piece of free memory has: nothing is as large."""
_TOUCH = """
import mmap, sys
mmap.mmap(-1, int(sys.argv[1]), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
"""
_LEFT_ALONE = 1 << 30
"""Bytes that are not touched: others need some meanwhile."""


@contextmanager
def kept() -> Iterator[None]:
    """Meanwhile the memory of this machine is its own; nothing is done where it always is."""
    if not _REPORTED.exists():
        yield
        return
    before = _REPORTED.read_text()
    _REPORTED.write_text(_NEVER)
    try:
        _touch()
        yield
    finally:
        _REPORTED.write_text(before)


def _touch() -> None:
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemFree:"))
    # Another process, that can be ended without us.
    subprocess.run([sys.executable, "-c", _TOUCH, str(max(free - _LEFT_ALONE, 1 << 20))], check=False)
