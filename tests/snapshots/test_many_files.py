"""Memory that does not grow with the number of files: in it are the ways of the walk and the batches at work."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.snapshots.parts import PASSWORD, FolderStore, checked

from orlop.snapshots.repository import Repository

_PROGRAM = """
import resource, sys, time
from pathlib import Path
sys.path.insert(0, ".")
from tests.snapshots.parts import FolderStore, PASSWORD
from orlop.snapshots.check import check
from orlop.snapshots.prune import prune
from orlop.snapshots.repository import Repository
from orlop.snapshots.restore import restore
from orlop.snapshots.save import About, save
repository = Repository.open(FolderStore(Path(sys.argv[1])), PASSWORD)
last, verb, count = next(reversed(repository.snapshots()), None), sys.argv[3], 0
if verb == "save":
    done = save(repository, Path(sys.argv[2]), About("data", time.time_ns()), parent=last)
    assert not done.problems, done.problems
    count = done.files
elif verb == "restore":
    done = restore(repository, repository.snapshot(last), Path(sys.argv[2]), path="data")
    assert not done.problems, done.problems
    count = done.files
elif verb == "check":
    assert not check(repository, read_data=True)
else:
    if verb == "mark":
        for snapshot in repository.snapshots():
            repository.forget(snapshot)
    count = sum(action.verb == verb for action in prune(repository, grace=0).actions)
# What getrusage says of this process begins with the memory of the one that started it.
own = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
print(count, max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) // 1024)
"""


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory."""
    root = Path(tempfile.mkdtemp(prefix="orlop-many-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=90%,nr_inodes=0", "tmpfs", root], check=True)
    try:
        yield root
    finally:
        subprocess.run(["umount", "-l", root], check=True)
        root.rmdir()


def made(folder: Path, count: int) -> Path:
    for number in range(count):
        place = f"{folder}/{number // 10_000}/{number // 100 % 100}"
        if number % 100 == 0:
            os.makedirs(place)
        with open(f"{place}/file {number}", "wb", buffering=0) as file:
            file.write(b"file %d of many\n" % number)
    return folder


def used(place: Path, folder: Path, verb: str) -> tuple[int, int]:
    """Files, or of a prune packs, and the megabytes of the largest process."""
    argv = [sys.executable, "-c", _PROGRAM, str(place), str(folder), verb]
    files, megabytes = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    return int(files), int(megabytes)


def stories(memory: Path, count: int, limit: int) -> None:
    place, source = memory / "repository", made(memory / "source", count)
    Repository.create(FolderStore(place), PASSWORD)
    time.sleep(0.05)

    for verb, folder in (("save", source), ("save", source), ("restore", memory / "target")):
        files, megabytes = used(place, folder, verb)

        assert files == count
        assert megabytes < limit, (verb, megabytes)
    checked(place)
    packs = len([path for path in (place / "data").rglob("*") if path.is_file()])
    for verb, expected in (("check", 0), ("mark", packs), ("sweep", packs)):
        found, megabytes = used(place, source, verb)

        assert found == expected
        assert megabytes < limit, (verb, megabytes)


@pytest.mark.part("S2", "S3", "S5")
def test_thirty_thousand_files_take_little_memory(memory: Path) -> None:
    stories(memory, 30_000, 100)


@pytest.mark.campaign
@pytest.mark.timeout(1800)
@pytest.mark.part("S2", "S3", "S5")
def test_a_million_files_take_hardly_more(memory: Path) -> None:
    stories(memory, 1_000_000, 200)


def test_a_large_file_takes_no_more_memory_than_a_small_one(memory: Path) -> None:
    (memory / "source").mkdir()
    with (memory / "source" / "large").open("wb") as file:
        for _ in range(256):
            file.write(os.urandom(1 << 20))
    Repository.create(FolderStore(memory / "repository"), PASSWORD)

    assert used(memory / "repository", memory / "source", "save")[1] < 200
    assert used(memory / "repository", memory / "target", "restore")[1] < 200
