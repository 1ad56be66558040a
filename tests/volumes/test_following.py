"""Clones of large files that follow their originals: always what the original is, and never silent about a change."""

import contextlib
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.power import Disk
from tests.volumes import pairs

from orlop.kernel import reflink
from orlop.kernel import syscalls as sc
from orlop.testing.waiting import eventually
from orlop.volumes import following, image
from orlop.volumes.mirror import Mirror
from orlop.volumes.shadow import Shadow

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="filesystems need root")
PAGE, PAGES = 4096, 64


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """The root of a volume's filesystem, as orlop makes it."""
    image.make(tmp_path / "image", "xfs", 300 << 20, image.Root(), thin=True)
    with image.opened(tmp_path / "image") as folder:
        yield folder


@pytest.fixture
def willing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files follow too, and whatever changed."""
    monkeypatch.setattr(following, "_LEAST", 1)
    monkeypatch.setattr(following, "_DEARER", 0)


@pytest.fixture
def no_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What changed just now counts as seen."""
    monkeypatch.setattr("orlop.volumes.mirror._JUST_NOW", 0)


def disturb(file: Path, rng: random.Random) -> None:
    """One of the things that databases and people do to a file."""
    size, place = file.stat().st_size, rng.randrange(PAGES) * PAGE
    with file.open("r+b") as opened:
        opened.seek(place)
        fd = opened.fileno()
        actions: list[Callable[[], object]] = [
            lambda: opened.write(rng.randbytes(PAGE)),
            lambda: opened.write(rng.randbytes(rng.randrange(1, 3 * PAGE))),
            lambda: opened.write(bytes(PAGE)),
            lambda: os.pwrite(fd, rng.randbytes(100), size),
            lambda: os.ftruncate(fd, rng.randrange(1, 2 * PAGES * PAGE)),
            lambda: os.ftruncate(fd, max(1, size - rng.randrange(size))),
            lambda: os.posix_fallocate(fd, place, 5 * PAGE),
            lambda: _hole(fd, place),
            lambda: os.fchmod(fd, rng.choice([0o600, 0o640])),
            lambda: os.setxattr(fd, "user.note", rng.randbytes(3)),
        ]
        rng.choice(actions)()


def _hole(fd: int, place: int) -> None:
    sc.punch_hole(fd, place, 3 * PAGE)


def covered(old: bytes, new: bytes, ranges: list[tuple[int, int]]) -> bool:
    """Whether the ranges have every byte in which the longer beginning that both have differs, and all new bytes."""
    masked = bytearray(old[: len(new)].ljust(len(new), b"\0"))
    for start, end in ranges:
        masked[start:end] = new[start:end]
    shared = min(len(old), len(new))
    return masked[:shared] == new[:shared]


@pytest.mark.feature("S3")
@pytest.mark.usefixtures("willing", "no_tick")
@pytest.mark.parametrize("seed", range(12))
def test_a_clone_that_follows_is_its_original_and_knows_what_changed_since_any_snapshot(root, seed, monkeypatch):
    rng, shadow, file = random.Random(seed), Shadow(root), root / "data/file"
    file.write_bytes(rng.randbytes(PAGES * PAGE))
    shadow.take([])
    was: list[tuple[int, int, bytes]] = []
    followed = 0

    for _ in range(14):
        status = (shadow.folder / "file").stat()
        was.append((status.st_ino, status.st_ctime_ns, file.read_bytes()))
        for _ in range(rng.randrange(4)):
            disturb(file, rng)
        time.sleep(0.005)  # the clock of the kernel goes on
        if not rng.randrange(4):
            monkeypatch.setattr(following, "_DEARER", 100)  # cloned anew, once it has begun to follow
        shadow.take([])
        monkeypatch.setattr(following, "_DEARER", 0)

        now = file.read_bytes()
        assert (shadow.folder / "file").read_bytes() == now
        assert (shadow.folder / "file").stat().st_mode == file.stat().st_mode
        with (shadow.folder / "file").open("rb") as opened:
            for inode, changed, content in was:
                ranges = shadow.changed(opened.fileno(), inode, changed)
                assert ranges is None or covered(content, now, ranges)
            followed += shadow.changed(opened.fileno(), *was[-1][:2]) is not None
        if not rng.randrange(3):
            shadow.settle()
    assert followed > 8


def test_a_file_in_which_little_changed_follows_and_another_is_cloned_anew(root):
    rng, shadow, file = random.Random(1), Shadow(root), root / "data/file"
    file.write_bytes(rng.randbytes(8 << 20))
    shadow.take([])
    inodes = [(shadow.folder / "file").stat().st_ino]
    for pages in (2048, 20, 20, 20, 20):
        with file.open("r+b") as opened:
            for page in rng.sample(range(2048), pages):
                opened.seek(page * PAGE)
                opened.write(rng.randbytes(PAGE))
        shadow.take([])
        inodes.append((shadow.folder / "file").stat().st_ino)
        assert (shadow.folder / "file").read_bytes() == file.read_bytes()

    assert inodes[0] != inodes[1], "all of it is another"
    assert len(set(inodes[-3:])) == 1


@pytest.mark.usefixtures("willing")
def test_who_writes_and_cannot_be_held_still_gets_a_clone_of_one_moment(root):
    (root / "data/file").write_bytes(bytes(PAGES * PAGE))
    Shadow(root).take([])
    mirror = Mirror(root / "data", root / "shadow", root / "before")
    before = (root / "shadow/file").stat().st_ino
    (root / "data/file").write_bytes(bytes(PAGES * PAGE - 1))
    mirror.may_follow = False

    mirror.update_all()

    assert (root / "shadow/file").stat().st_ino != before


WRITER = f"""
import os
file = os.open("b", os.O_RDWR | os.O_CREAT)
os.truncate(file, {PAGES * PAGE})
number = 0
while True:
    number += 1
    for page in range({PAGES}):
        os.pwrite(file, b"%012d" % number, page * {PAGE})
"""
MAPPER = f"""
import mmap, os
file = os.open("b", os.O_RDWR | os.O_CREAT)
os.truncate(file, {PAGES * PAGE})
pages = mmap.mmap(file, {PAGES * PAGE})
number = 0
while True:
    number += 1
    for page in range({PAGES}):
        pages[page * {PAGE} : page * {PAGE} + 12] = b"%012d" % number
"""


@pytest.mark.feature("S3")
@pytest.mark.usefixtures("willing")
@pytest.mark.parametrize("program", [WRITER, MAPPER], ids=["writes", "mapping"])
def test_a_clone_that_follows_a_file_in_use_is_of_one_moment(root, program, monkeypatch):
    followed, follow = [], following.follow
    monkeypatch.setattr(following, "follow", lambda *a: followed.append(follow(*a)) or followed[-1])
    shadow = Shadow(root)
    with pairs.written(root / "data", program) as pid:
        for _ in range(15):
            assert shadow.take([pid])
            assert_of_one_moment(shadow.folder / "b")
    assert any(followed)


@pytest.mark.usefixtures("willing")
def test_a_file_whose_writer_cannot_be_held_still_is_of_one_moment_too(root):
    shadow = Shadow(root)
    with subprocess.Popen([sys.executable, "-c", WRITER], cwd=root / "data") as writer:
        try:
            eventually(lambda: (root / "data/b").exists() and (root / "data/b").stat().st_size)
            for _ in range(15):
                assert not shadow.take([writer.pid])
                assert_of_one_moment(shadow.folder / "b")
        finally:
            writer.kill()


def assert_of_one_moment(file: Path) -> None:
    """Its pages have one number from some page on, and the next one before it."""
    content = file.read_bytes()
    numbers = [int(content[page * PAGE : page * PAGE + 12].strip(b"\0") or b"0") for page in range(PAGES)]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] - numbers[-1] <= 1


def dying_after(steps: int, root: Path) -> None:
    """Let the mirror follow, and die at the step after so many."""
    left = iter(range(steps))

    def dying(call: Callable[..., object]) -> Callable[..., object]:
        def tried(*arguments: object, **more: object) -> object:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return call(*arguments, **more)

        return tried

    with pytest.MonkeyPatch.context() as patched, contextlib.suppress(KeyboardInterrupt):
        for place, name in [(reflink, "clone_range"), (os, "setxattr"), (os, "utime"), (os, "ftruncate")]:
            patched.setattr(place, name, dying(getattr(place, name)))
        Mirror(root / "data", root / "shadow", root / "before").update_all()


def assert_follows_and_knows(shadow: Shadow, file: Path, was: os.stat_result, old: bytes) -> None:
    """The clone is what the file is, and knows where that is another than ``old``, which it ``was``."""
    now = file.read_bytes()
    assert (shadow.folder / "file").read_bytes() == now
    with (shadow.folder / "file").open("rb") as opened:
        ranges = shadow.changed(opened.fileno(), was.st_ino, was.st_ctime_ns)
    assert ranges is not None
    assert covered(old, now, ranges)


@pytest.mark.usefixtures("willing", "no_tick")
@pytest.mark.parametrize("step", range(9))
def test_a_clone_killed_at_any_step_is_made_good_and_keeps_what_it_knew(root, step):
    rng, shadow, file = random.Random(step), Shadow(root), root / "data/file"
    file.write_bytes(old := rng.randbytes(PAGES * PAGE))
    shadow.take([])
    was = (shadow.folder / "file").stat()
    for _ in range(3):
        disturb(file, rng)

    dying_after(step, root)

    Shadow(root).take([])
    assert_follows_and_knows(shadow, file, was, old)


@pytest.mark.usefixtures("willing", "no_tick")
@pytest.mark.parametrize("step", range(9))
@pytest.mark.parametrize("forced", ["nothing", "log", "all"])
def test_a_power_cut_while_a_clone_follows_lets_it_forget_nothing(tmp_path, step, forced):
    disk = Disk(tmp_path, "xfs")
    try:
        (disk.place / "data").mkdir()
        rng, shadow, file = random.Random(step), Shadow(disk.place), disk.place / "data/file"
        file.write_bytes(old := rng.randbytes(PAGES * PAGE))
        shadow.take([])
        was = (shadow.folder / "file").stat()
        (disk.place / "other").touch()
        subprocess.run(["sync", "-f", disk.place], check=True)
        for _ in range(3):
            disturb(file, rng)
        subprocess.run(["sync", file], check=True)

        dying_after(step, disk.place)
        if forced != "nothing":
            # The log has all that happened before, whatever file is synced.
            subprocess.run(
                ["sync", disk.place / "other"] if forced == "log" else ["sync", "-f", disk.place], check=True
            )
        disk.cut()
        disk.come_back()

        Shadow(disk.place).take([])
        assert_follows_and_knows(shadow, file, was, old)
    finally:
        disk.close()


@pytest.mark.usefixtures("willing")
def test_a_history_that_came_with_a_copy_is_another_files(root):
    shadow, file = Shadow(root), root / "data/file"
    file.write_bytes(bytes(PAGES * PAGE))
    shadow.take([])
    was = (shadow.folder / "file").stat()
    with file.open("r+b") as opened:
        opened.write(b"x")
    shadow.take([])
    shutil.copyfile(shadow.folder / "file", root / "copy")
    os.setxattr(root / "copy", following.HISTORY, os.getxattr(shadow.folder / "file", following.HISTORY))

    with (shadow.folder / "file").open("rb") as right, (root / "copy").open("rb") as copy:
        assert following.since(right.fileno(), was.st_ctime_ns) is not None
        assert following.since(copy.fileno(), was.st_ctime_ns) is None


@pytest.mark.usefixtures("willing", "no_tick")
def test_a_long_history_forgets_its_beginning(root, monkeypatch):
    monkeypatch.setattr(following, "_ROOM", 200)
    shadow, file, was = Shadow(root), root / "data/file", []
    file.write_bytes(bytes(PAGES * PAGE))
    shadow.take([])
    for number in range(20):
        was.append((shadow.folder / "file").stat().st_ctime_ns)
        with file.open("r+b") as opened:
            opened.seek(number * PAGE)
            opened.write(b"x")
        time.sleep(0.005)
        shadow.take([])

    with (shadow.folder / "file").open("rb") as opened:
        known = [following.since(opened.fileno(), moment) for moment in was]
    assert known[0] is None
    assert known[-1] == [(0, PAGE), (19 * PAGE, 20 * PAGE)]
    assert all(found is not None for found in known[-3:])


def test_what_followed_twice_within_a_tick_of_the_clock_knows_both(root):
    (root / "clone").write_bytes(bytes(PAGES * PAGE))
    with (root / "clone").open("r+b") as clone:
        fd = clone.fileno()
        status = os.fstat(fd)
        for moment, page in ((1, 5), (2, 7), (2, 9)):
            copy, ranges = SimpleNamespace(st_ino=status.st_ino, st_ctime_ns=moment), [(page * PAGE, (page + 1) * PAGE)]
            following._remember(fd, copy, ranges)

        found = {moment: following.since(fd, moment) for moment in (1, 2, 3)}

    assert [len(found[1]), len(found[2]), found[3]] == [3, 2, None]
    assert (7 * PAGE, 8 * PAGE) in found[2]
