"""How long a snapshot holds up whoever writes to a database that has been written to here and there for a while.

The database has 512 MiB and lies on an XFS of ours; between snapshots one page in a hundred is written anew, again and
again, so that it has thousands of extents. A writer of pages, each of them synced, is in a control group of its own, as
containers are. The peer is one clone of the file by ``cp --reflink``: what a snapshot cannot do without, were the whole
file cloned. Both are in memory.
"""

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from figures import Figure, alone, compare
from orlop.testing import _cgroups
from orlop.volumes import image
from orlop.volumes.shadow import Shadow

MIB, PAGE, AGE, SNAPSHOTS = 512, 8192, 12, 8
_GROUP = "orlop-bench-pause"
_WRITER = """
import os, random, sys, time
file, asked = os.open(sys.argv[1], os.O_RDWR), sys.argv[2]
pages, last, worst = os.fstat(file).st_size // 8192, time.monotonic(), 0.0
while True:
    os.pwrite(file, os.urandom(8192), random.randrange(1, pages) * 8192)
    os.fdatasync(file)
    now = time.monotonic()
    worst, last = max(worst, now - last), now
    if os.path.exists(asked):
        os.unlink(asked)
        print(worst * 1000, flush=True)
        worst, last = 0.0, time.monotonic()
    time.sleep(0.002)
"""


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="orlop-bench-") as folder:
        place = Path(folder)
        image.make(place / "image", "xfs", 4 * MIB << 20, image.Root(), thin=True)
        with image.opened(place / "image") as root:
            database = _aged(root)
            with _written(database, place / "asked") as writer:
                rounds = [_round(root, database, writer, place / "asked") for _ in range(SNAPSHOTS)]
            extents = float(subprocess.check_output(["filefrag", database], text=True).split()[-3])
    ours, peer = zip(*rounds, strict=True)
    return [
        compare("longest wait of a writer, in use", "ms", ours, peer, "one clone by cp --reflink", "<= 0.5"),
        alone("extents of the database at the end", "", [extents], ""),
    ]


def _aged(root: Path) -> Path:
    """The database, after some snapshots with changes between them."""
    database, shadow, chance = root / image.DATA / "database", Shadow(root), random.Random(5)
    with database.open("wb") as file:
        for _ in range(MIB):
            file.write(chance.randbytes(1 << 20))
    pages = (MIB << 20) // PAGE
    for _ in range(AGE):
        shadow.take([])
        shadow.settle()
        with database.open("r+b") as file:
            for page in chance.sample(range(1, pages), pages // 100):
                file.seek(page * PAGE)
                file.write(os.urandom(PAGE))
    return database


@contextmanager
def _written(database: Path, asked: Path) -> Iterator["subprocess.Popen[str]"]:
    _cgroups.make(_GROUP)
    try:
        argv = [sys.executable, "-c", _WRITER, str(database), str(asked)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as writer:
            try:
                _cgroups.move(_GROUP, [writer.pid])
                yield writer
            finally:
                writer.kill()
    finally:
        _cgroups.remove(_GROUP)


def _round(root: Path, database: Path, writer: "subprocess.Popen[str]", asked: Path) -> tuple[float, float]:
    """The longest waits during a snapshot, and during a clone."""
    shadow, copy = Shadow(root), root / "copy"
    _worst(writer, asked)
    shadow.take([writer.pid])
    ours = _worst(writer, asked)
    shadow.settle()
    subprocess.run(["cp", "--reflink=always", database, copy], check=True)
    theirs = _worst(writer, asked)
    copy.unlink()
    return ours, theirs


def _worst(writer: "subprocess.Popen[str]", asked: Path) -> float:
    """Milliseconds, since this was asked last."""
    asked.touch()
    assert writer.stdout
    return float(writer.stdout.readline())
