import os
import random
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from orlop.errors import InUse
from orlop.kernel import btrfs, freeze, reflink
from orlop.kernel.mounter import KernelMounter
from orlop.mount import Mount

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="filesystems need root")
MAKE = {"xfs": ["mkfs.xfs", "-q", "-f", "-m", "reflink=1"], "btrfs": ["mkfs.btrfs", "-q"], "ext4": ["mkfs.ext4", "-q"]}
PAGE = 8192


@pytest.fixture
def made(tmp_path):
    """Makes a filesystem of a kind in a file, and mounts it; all are unmounted afterwards."""
    mounter, targets = KernelMounter(), []

    def make(kind: str, *options: str) -> Path:
        image, target = tmp_path / f"{kind}.img", tmp_path / kind
        with open(image, "wb") as file:
            file.truncate(400 << 20)
        subprocess.run([*MAKE[kind], str(image)], check=True)
        mounter.mount([Mount(kind, str(image), ("loop", *options))], target)
        targets.append(target)
        return target

    yield make
    for target in targets:
        mounter.unmount(target)


def write(path: Path, rng: random.Random, pages: int) -> None:
    path.write_bytes(rng.randbytes(pages * PAGE))


def really_changed(old: bytes, new: bytes) -> set[int]:
    pages = range(0, max(len(old), len(new)), PAGE)
    return {start for start in pages if old[start : start + PAGE] != new[start : start + PAGE]}


def rewrite(path: Path, rng: random.Random, pages: int) -> None:
    """One of the things that databases and people do to a file."""
    with open(path, "r+b") as file:
        kind = rng.randrange(5)
        file.seek(rng.randrange(pages) * PAGE)
        if kind == 0:
            file.write(rng.randbytes(PAGE))
        elif kind == 1:
            file.write(rng.randbytes(100))
        elif kind == 2:
            file.write(bytes(3 * PAGE))
        elif kind == 3:
            file.truncate(rng.randrange(1, 2 * pages) * PAGE)
        else:
            os.posix_fallocate(file.fileno(), file.tell(), 2 * PAGE)


@pytest.mark.part("S3")
@pytest.mark.parametrize(("kind", "options"), [("xfs", ()), ("btrfs", ()), ("btrfs", ("compress-force=zstd",))])
def test_extents_tell_every_page_that_changed_since_a_clone(made, kind, options):
    folder, rng = made(kind, *options), random.Random(4711)

    for round_ in range(12):
        file, copy = folder / f"data-{round_}", folder / f"copy-{round_}"
        write(file, rng, 64)
        with open(file, "rb") as source, open(copy, "wb") as target:
            reflink.clone(source.fileno(), target.fileno())
        for _ in range(rng.randrange(8)):
            rewrite(file, rng, 64)
        with open(copy, "rb") as old, open(file, "rb") as new:
            ranges = reflink.changed(old.fileno(), new.fileno())

        size = file.stat().st_size
        wanted = {page for page in really_changed(copy.read_bytes(), file.read_bytes()) if page < size}
        covered = {page for page in wanted if any(start < page + PAGE and end > page for start, end in ranges)}
        assert covered == wanted
        assert all(end <= size for _, end in ranges)


def test_of_a_file_in_which_one_page_changed_little_else_is_named(made):
    folder = made("xfs")
    write(folder / "data", random.Random(1), 2048)
    with open(folder / "data", "rb") as source, open(folder / "copy", "wb") as target:
        reflink.clone(source.fileno(), target.fileno())

    with open(folder / "data", "r+b") as file:
        file.seek(100 * PAGE)
        file.write(b"x")
    with open(folder / "copy", "rb") as old, open(folder / "data", "rb") as new:
        ranges = reflink.changed(old.fileno(), new.fileno())

    assert sum(end - start for start, end in ranges) <= 256 << 10


def test_a_filesystem_says_whether_it_shares_blocks(made):
    for kind, shares in (("xfs", True), ("ext4", False)):
        fd = os.open(made(kind), os.O_RDONLY)
        try:
            assert reflink.is_possible(fd) is shares
        finally:
            os.close(fd)


def test_a_copy_is_whole_also_where_nothing_can_be_shared_and_its_holes_stay_holes(made):
    folder = made("ext4")
    with open(folder / "data", "wb") as file:
        file.seek(20 << 20)
        file.write(b"the end")

    with open(folder / "data", "rb") as source, open(folder / "copy", "wb") as target:
        reflink.copy(source.fileno(), target.fileno())

    assert (folder / "copy").read_bytes() == (folder / "data").read_bytes()
    assert (folder / "copy").stat().st_blocks * 512 < 1 << 20


def test_nobody_writes_to_a_frozen_filesystem_and_all_go_on_afterwards(made):
    folder = made("xfs")

    with freeze.frozen(folder):
        writer = subprocess.Popen(["dd", "if=/dev/zero", f"of={folder}/file", "bs=1k", "count=1", "status=none"])
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(0.3)
    assert writer.wait(10) == 0

    assert (folder / "file").stat().st_size == 1024


FREEZER = """
import sys, time
from pathlib import Path
from orlop.kernel import freeze
with freeze.frozen(Path(sys.argv[1])):
    print("frozen", flush=True)
    time.sleep(60)
"""


def test_writers_go_on_when_the_process_that_froze_it_is_killed(made):
    folder = made("ext4")
    with subprocess.Popen([sys.executable, "-c", FREEZER, str(folder)], stdout=subprocess.PIPE) as freezer:
        freezer.stdout.readline()
        freezer.kill()

    subprocess.run(
        ["dd", "if=/dev/zero", f"of={folder}/file", "bs=1k", "count=1", "status=none"], check=True, timeout=10
    )
    # Who thawed it has it open until it ends.
    until = time.monotonic() + 10
    while folder.is_mount():
        with suppress(InUse):
            KernelMounter().unmount(folder)
        assert time.monotonic() < until


@pytest.mark.parametrize("kind", ["xfs", "ext4"])
def test_a_filesystem_that_is_shut_down_refuses_its_writer_at_once(made, kind):
    folder = made(kind)
    with open(folder / "file", "wb", buffering=0) as file:
        file.write(b"before")

        freeze.shut_down(folder)

        with pytest.raises(OSError, match="Input/output error"):
            file.write(b"after")


def test_a_snapshot_of_a_subvolume_keeps_what_was_there(made):
    folder = made("btrfs")
    btrfs.create(folder / "volume")
    (folder / "volume" / "file").write_text("before")

    btrfs.snapshot(folder / "volume", folder / "kept")
    (folder / "volume" / "file").write_text("after")

    assert btrfs.is_subvolume(folder / "volume")
    assert (folder / "kept" / "file").read_text() == "before"
    with pytest.raises(OSError, match="Read-only"):
        (folder / "kept" / "file").write_text("x")
    btrfs.delete(folder / "kept")
    btrfs.delete(folder / "kept")
    assert not (folder / "kept").exists()
