"""A program that writes the same numbers to two files: whoever sees both at one moment sees them at most one apart."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orlop.testing import _cgroups

WRITER = """
import os
a, b = (os.open(name, os.O_RDWR | os.O_CREAT) for name in ("a", "b"))
number = 0
while True:
    number += 1
    os.pwrite(a, b"%012d" % number, 0)
    os.pwrite(b, b"%012d" % number, 0)
"""
MAPPER = """
import mmap, os
files = [os.open(name, os.O_RDWR | os.O_CREAT) for name in ("a", "b")]
for file in files:
    os.truncate(file, 4096)
a, b = (mmap.mmap(file, 4096) for file in files)
number = 0
while True:
    number += 1
    a[:12] = b"%012d" % number
    b[:12] = b"%012d" % number
"""


@contextmanager
def written(folder: Path, program: str = WRITER) -> Iterator[int]:
    """The process that writes in ``folder``, in a control group of its own."""
    group = f"orlop-pairs-{os.getpid()}"
    _cgroups.make(group)
    try:
        with subprocess.Popen([sys.executable, "-c", program], cwd=folder) as process:
            try:
                _cgroups.move(group, [process.pid])
                while not (folder / "b").exists() or not (folder / "b").read_bytes()[:12].strip(b"\0"):
                    time.sleep(0.01)
                yield process.pid
            finally:
                process.kill()
    finally:
        _cgroups.remove(group)


def seen(folder: Path) -> tuple[int, int]:
    """The two numbers."""
    a, b = (int((folder / name).read_bytes()[:12]) for name in "ab")
    return a, b
