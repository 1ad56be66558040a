"""What was written since a snapshot, told by where blocks are: right for every repository that a volume is saved to."""

import contextlib
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.snapshots.parts import PASSWORD, FolderStore

from orlop.kernel.mounter import KernelMounter
from orlop.mount import Mount
from orlop.snapshots import chunks, largefiles
from orlop.snapshots.repository import Repository
from orlop.snapshots.restore import restore
from orlop.snapshots.save import About, save
from orlop.volumes import image
from orlop.volumes.comparing import by_blocks
from orlop.volumes.sources import ShadowSource, Source, SubvolumeSource

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="filesystems need root")
MIB = 1 << 20


@pytest.fixture(params=["xfs", "btrfs"])
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Callable[[], Source]]]:
    """The files of a volume, and how to read them as of one moment."""
    with contextlib.ExitStack() as stack:
        if request.param == "xfs":
            image.make(tmp_path / "image", "xfs", 300 * MIB, image.Root(), thin=True)
            root = stack.enter_context(image.opened(tmp_path / "image"))
            yield root / image.DATA, lambda: ShadowSource(tmp_path / "image", list)
            return
        with (tmp_path / "disk").open("wb") as file:
            file.truncate(400 * MIB)
        subprocess.run(["mkfs.btrfs", "-q", str(tmp_path / "disk")], check=True)
        KernelMounter().mount([Mount("btrfs", str(tmp_path / "disk"), ("loop",))], tmp_path / "root")
        stack.callback(KernelMounter().unmount, tmp_path / "root")
        subprocess.run(["btrfs", "-q", "subvolume", "create", str(tmp_path / "root/data")], check=True)
        yield tmp_path / "root/data", lambda: SubvolumeSource(tmp_path / "root/data", list)


@pytest.fixture
def no_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said to be unchanged is not looked at by chance: what is said has to be right."""
    monkeypatch.setattr(largefiles, "_audit", lambda *_: True)


def saved(repository: Repository, source: Source) -> str:
    last = next(reversed(repository.snapshots()), None)
    with source.still() as still:
        about = About("data", time.time_ns())
        found = save(
            repository, still.folder, about, parent=last, changed=by_blocks(source, last), clones=still.are_clones
        )
    source.settle(found.snapshot)
    return found.snapshot


def scribbled(file: Path, rng: random.Random) -> bytes:
    """Some pages of the file are written anew; what it is then."""
    with file.open("r+b") as opened:
        for page in rng.sample(range(file.stat().st_size // 8192), 5):
            opened.seek(page * 8192)
            opened.write(rng.randbytes(8192))
    time.sleep(0.06)  # what changed just now is made anew
    return file.read_bytes()


@pytest.mark.feature("S3")
@pytest.mark.usefixtures("no_audit")
@pytest.mark.parametrize("order", ["ABAAB", "ABAABAAAB", "AABBABAB"])
def test_each_of_two_repositories_gets_what_changed_since_its_own_snapshot(volume, tmp_path, order):
    folder, source = volume
    rng = random.Random(order)
    repositories = {name: Repository.create(FolderStore(tmp_path / name), PASSWORD) for name in "AB"}
    (folder / "database").write_bytes(b"SQLite format 3\0" + rng.randbytes(8 * MIB - 16))

    for number, name in enumerate(order):
        content = scribbled(folder / "database", rng)
        snapshot = saved(repositories[name], source())
        target = tmp_path / f"target{number}"
        restore(repositories[name], repositories[name].snapshot(snapshot), target, path="data")
        assert (target / "database").read_bytes() == content, f"snapshot {number} in {name}"


@pytest.mark.usefixtures("no_audit")
def test_a_snapshot_after_one_that_was_deleted_has_what_changed_since_the_one_before_it(volume, tmp_path):
    folder, source = volume
    rng, repository = random.Random(7), Repository.create(FolderStore(tmp_path / "A"), PASSWORD)
    (folder / "database").write_bytes(b"SQLite format 3\0" + rng.randbytes(8 * MIB - 16))

    for number in range(4):
        content = scribbled(folder / "database", rng)
        snapshot = saved(repository, source())
        if number == 1:
            repository.forget(snapshot)

    restore(repository, repository.snapshot(snapshot), tmp_path / "target", path="data")
    assert (tmp_path / "target/database").read_bytes() == content


@pytest.mark.usefixtures("no_audit")
def test_only_what_changed_is_read_where_the_last_snapshot_is_the_parent(volume, tmp_path, monkeypatch):
    folder, source = volume
    rng, repository = random.Random(8), Repository.create(FolderStore(tmp_path / "A"), PASSWORD)
    (folder / "database").write_bytes(b"SQLite format 3\0" + rng.randbytes(32 * MIB - 16))
    scribbled(folder / "database", rng)
    saved(repository, source())
    read, cut = [], chunks.cut

    def counted(fd: int, start: int, end: int, cutting: chunks.Cutting) -> Iterator[memoryview | chunks.Zeros]:
        read.append(end - start)
        return cut(fd, start, end, cutting)

    monkeypatch.setattr(chunks, "cut", counted)
    for _ in range(3):
        read.clear()
        scribbled(folder / "database", rng)
        saved(repository, source())
        assert 5 * 8192 <= sum(read) <= 10 * chunks.BLOCK
