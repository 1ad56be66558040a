"""A second volume like one, made at once where the two can share what they store."""

import os
import signal
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.dying import STEP
from tests.volumes import pairs
from tests.volumes.test_shadow import described

from orlop import engine
from orlop.errors import Conflict, Invalid, NoSpace, NotFound
from orlop.kernel.mounter import KernelMounter
from orlop.kernel.mountinfo import ours
from orlop.mount import Mount
from orlop.state import Holder
from orlop.volumes import reconcile
from orlop.volumes.rewind import clone, rollback

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="filesystems need root")

ME = Holder("test", "one")
IN_A_CONTAINER = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x20000) == 0
assert libc.mount(b"none", b"/", None, 0x44000, None) == 0
assert libc.mount(b".", b"/mnt", None, 0x1000, None) == 0
__import__("os").chdir("/mnt")
"""
"""For a program: it sees the volume in a mount namespace of its own."""
IMAGE = {"size": "300m"}
WAYS = [("btrfs", {}), ("xfs", IMAGE), ("xfs", {"size": "300m", "thin": "true"}), ("xfs", {"size": "16m"}),
        ("btrfs", {"size": "300m", "thin": "true"})]  # fmt: skip
"""What the pool is, and the options of the volume."""


def fill(folder: Path) -> None:
    """Files of many kinds."""
    (folder / "sub").mkdir(mode=0o2711)
    (folder / "sub/file").write_text("one")
    (folder / "sub/link").symlink_to("file")
    (folder / "away").symlink_to("/nowhere")
    os.link(folder / "sub/file", folder / "second")
    os.mkfifo(folder / "pipe")
    os.mknod(folder / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.setxattr(folder / "second", "user.note", b"kept")
    # version 2; user::rw-, user:33:rw-, group::r--, mask::rw-, other::---
    entries = [(1, 6, -1), (2, 6, 33), (4, 4, -1), (16, 6, -1), (32, 0, -1)]
    acl = struct.pack("<L", 2) + b"".join(struct.pack("<HHl", *entry) for entry in entries)
    os.setxattr(folder / "second", "system.posix_acl_access", acl)
    with open(folder / os.fsdecode(b"hole \xff\n"), "wb") as file:
        file.truncate(1 << 20)
    os.chown(folder / "away", 7, 8, follow_symlinks=False)
    os.chown(folder / "sub", 5, 6)
    os.utime(folder / "second", ns=(10**18, 10**18 + 1))
    os.chown(folder, 3, 4)
    folder.chmod(0o1770)


class Pool:
    """A host whose volumes are on a filesystem of a kind."""

    def __init__(self, folder: Path, kind: str):
        self.config = engine.Config(root=folder / "pool/root", run=folder / "run")
        self.kind, self.timeline = kind, engine.timeline(self.config)
        self.service = self.timeline.service

    def make(self, options: dict[str, str], name: str = "data") -> Path:
        """A volume in use; where it is mounted."""
        self.service.create(name, options)
        return self.service.mount(name, ME)

    def clone(self, name: str, new: str, **options: str) -> Path:
        """A clone in use; where it is mounted."""
        clone(self.timeline, name, new, None, options)
        return self.service.mount(new, ME)

    def how(self) -> list[str]:
        """How each clone was made."""
        return [event.details["how"] for event in self.service.state.events() if event.action == "clone"]

    def settle(self) -> None:
        """Wait until no image is given blocks of its own any more."""
        end = time.monotonic() + 60
        while any((self.config.root / "volumes").glob("*/image.shared")):
            assert time.monotonic() < end
            time.sleep(0.02)


@pytest.fixture
def pools(tmp_path: Path) -> Iterator:
    """Makes the pool of a test, on a filesystem of a kind."""
    mounter, made = KernelMounter(), []

    def make(kind: str) -> Pool:
        with open(tmp_path / "disk", "wb") as file:
            file.truncate(3 << 30)
        subprocess.run([f"mkfs.{kind}", "-q", str(tmp_path / "disk")], check=True, stdout=subprocess.DEVNULL)
        mounter.mount([Mount(kind, str(tmp_path / "disk"), ("loop",))], tmp_path / "pool")
        made.append(Pool(tmp_path, kind))
        return made[0]

    yield make
    if made:
        made[0].settle()
        made[0].service.state.close()
    for place in sorted((entry.target for entry in ours() if entry.target.startswith(f"{tmp_path}/")), reverse=True):
        mounter.unmount(Path(place))


@pytest.mark.feature("S1")
@pytest.mark.parametrize(("kind", "options"), WAYS)
def test_a_clone_has_the_files_of_one_moment_while_a_program_writes_them(pools, kind, options):
    pool = pools(kind)
    folder = pool.make(options)
    (folder / "sub").mkdir(mode=0o711)
    (folder / "sub/file").write_text("one")
    os.setxattr(folder / "sub/file", "user.note", b"kept")
    os.chown(folder, 5, 6)

    with pairs.written(folder, IN_A_CONTAINER + pairs.WRITER):
        for number in range(4):
            new = pool.clone("data", f"copy{number}")
            first = pairs.seen(new)
            time.sleep(0.02)

            assert pairs.seen(new) == first
            assert first[0] - 1 <= first[1] <= first[0]
    assert (new / "sub/file").read_text() == "one"
    assert os.getxattr(new / "sub/file", "user.note") == b"kept"
    assert ((new / "sub").stat().st_mode & 0o777, new.stat().st_uid, new.stat().st_gid) == (0o711, 5, 6)
    assert set(pool.how()) == {"reflink" if options else "subvolume"}
    assert pool.timeline.all() == []


@pytest.mark.feature("S1")
@pytest.mark.parametrize(("kind", "options"), WAYS)
def test_a_clone_and_its_original_go_their_own_ways(pools, kind, options):
    pool = pools(kind)
    folder = pool.make(options)
    (folder / "file").write_text("one")
    (folder / "large").write_bytes(b"1" * (3 << 20))

    one = pool.clone("data", "one")
    (one / "file").write_text("two")
    two = pool.clone("one", "two")
    (two / "file").write_text("three")
    (folder / "large").write_bytes(b"2" * (3 << 20))
    pool.service.unmount("data", ME)
    pool.service.remove("data")
    pool.service.purge(next(iter(pool.service.state.unfinished())))

    assert [(place / "file").read_text() for place in (one, two)] == ["two", "three"]
    assert [(place / "large").read_bytes() for place in (one, two)] == [b"1" * (3 << 20)] * 2
    assert pool.service.get("two").options == options


@pytest.mark.feature("S1")
@pytest.mark.parametrize(("kind", "options"), WAYS[:2])
def test_a_clone_has_snapshots_of_its_own_and_goes_back_to_them(pools, kind, options):
    pool = pools(kind)
    folder = pool.make(options)
    (folder / "file").write_text("one")
    pool.timeline.take("data")
    (folder / "file").write_text("two")
    pool.timeline.take("data")

    new = pool.clone("data", "copy")
    made, _ = pool.timeline.take("copy")
    (new / "file").write_text("three")
    pool.timeline.take("copy")
    pool.service.unmount("copy", ME)
    rollback(pool.timeline, "copy", made)

    assert (pool.service.mount("copy", ME) / "file").read_text() == "two"


@pytest.mark.parametrize("options", [IMAGE, {"size": "300m", "thin": "true"}, {"size": "16m", "fs": "ext4"}])
def test_a_clone_can_be_larger(pools, options):
    pool = pools("xfs")
    (pool.make(options) / "file").write_text("one")

    new = pool.clone("data", "copy", size="500m")

    assert os.statvfs(new).f_blocks * os.statvfs(new).f_frsize > 420 << 20
    assert (new / "file").read_text() == "one"
    assert pool.how() == ["reflink"]


@pytest.mark.feature("S1")
@pytest.mark.parametrize(
    ("kind", "before", "more", "how"),
    [
        ("btrfs", {}, {"size": "16m"}, "subvolume"),
        ("xfs", {}, {}, "unused"),
        ("xfs", {"size": "320m"}, {"size": "300m"}, "shadow"),
        ("ext4", IMAGE, {}, "shadow"),
        ("ext4", {"size": "16m"}, {}, "unused"),
    ],
)
def test_what_cannot_share_is_copied_while_nobody_has_to_wait(pools, kind, before, more, how):
    pool = pools(kind)
    folder = pool.make(before)
    fill(folder)

    new = pool.clone("data", "copy", **more)

    assert described(new) == described(folder)
    assert pool.how() == [f"copy of {how}"]
    assert pool.timeline.all() == []


@pytest.mark.parametrize(("kind", "options"), [("ext4", {}), ("ext4", {"size": "16m"})])
def test_files_for_which_somebody_would_have_to_wait_are_cloned_by_a_snapshot(pools, kind, options):
    pool = pools(kind)
    folder = pool.make(options)

    with pairs.written(folder, IN_A_CONTAINER + pairs.WRITER):
        new = pool.clone("data", "copy")

    assert sorted(os.listdir(new)) == ["a", "b"]
    (made,) = pool.timeline.all("data")
    assert pool.how() == [f"snapshot {made.short}"]


@pytest.mark.feature("S1")
def test_a_copy_is_of_one_moment_while_a_program_writes(pools):
    pool = pools("ext4")
    folder = pool.make(IMAGE)

    with pairs.written(folder, IN_A_CONTAINER + pairs.WRITER):
        for number in range(3):
            first = pairs.seen(pool.clone("data", f"copy{number}"))

            assert first[0] - 1 <= first[1] <= first[0]
    assert pool.how() == ["copy of shadow"] * 3


def test_a_copy_that_has_no_room_leaves_nothing(pools):
    pool = pools("ext4")
    (pool.make({"size": "32m"}) / "file").write_bytes(os.urandom(20 << 20))

    with pytest.raises(NoSpace, match=r"not all files could be copied.*No space left"):
        clone(pool.timeline, "data", "copy", None, {"size": "16m"})

    assert [place.name for place in pool.service.folder.iterdir()] == ["data"]
    assert pool.service.state.unfinished() == []


def test_nothing_is_copied_into_a_folder_that_has_files(pools, tmp_path):
    pool = pools("ext4")
    (pool.make({}) / "file").write_text("one")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/other").write_text("mine")

    with pytest.raises(Conflict, match="has files already"):
        clone(pool.timeline, "data", "copy", "local", {"mountpoint": str(tmp_path / "mine")})

    assert os.listdir(tmp_path / "mine") == ["other"]


def test_what_makes_no_sense_is_refused_and_nothing_is_made(pools):
    pool = pools("btrfs")
    pool.make({})
    pool.make({}, "other")

    for new, options, error in (("other", {}, Conflict), ("copy", {"uid": "x"}, Invalid), ("a b", {}, Invalid)):
        with pytest.raises(error):
            clone(pool.timeline, "data", new, None, options)
    with pytest.raises(NotFound):
        clone(pool.timeline, "nothing", "copy", None, {})

    assert [row.name for row in pool.service.all()] == ["data", "other"]
    assert pool.service.state.unfinished() == []


@pytest.mark.parametrize("thin", ["false", "true"])
def test_room_that_was_promised_is_there_soon_after_a_clone(pools, thin):
    pool = pools("xfs")
    (pool.make({"size": "300m", "thin": thin}) / "file").write_bytes(os.urandom(40 << 20))
    os.sync()
    images = [pool.config.root / f"volumes/{name}/image" for name in ("data", "copy")]

    pool.clone("data", "copy")
    pool.settle()

    assert (_shared(images[0]), _shared(images[1])) == ((False, False) if thin == "false" else (True, True))
    assert (images[1].stat().st_blocks * 512 >= 300 << 20) == (thin == "false")


def test_a_volume_goes_around_the_hosts_cache_again_when_its_clone_has_blocks_of_its_own(pools):
    pool = pools("xfs")
    pool.make({"size": "300m"})
    before = _is_direct(pool)

    clone(pool.timeline, "data", "copy", None, {})
    pool.settle()
    pool.service.unmount("data", ME)
    end = time.monotonic() + 20
    while any("/data/image" in line for line in _loops(pool)):
        assert time.monotonic() < end
    pool.service.mount("data", ME)

    assert _is_direct(pool) == before


def _loops(pool: Pool) -> list[str]:
    """The devices of images: whether each reads and writes directly, and its image."""
    found = subprocess.run(["losetup", "-lnO", "DIO,BACK-FILE"], check=True, capture_output=True, text=True).stdout
    return [line for line in found.splitlines() if f"{pool.config.root}/" in line]


def _is_direct(pool: Pool) -> bool:
    return {line.split()[0] for line in _loops(pool)} == {"1"}


def _shared(image: Path) -> bool:
    found = subprocess.run(["filefrag", "-v", image], check=True, capture_output=True, text=True).stdout
    return "shared" in found


CLONE = (
    STEP
    + """
from pathlib import Path
from orlop import engine
from orlop.volumes.rewind import clone
timeline = engine.timeline(engine.Config(root=Path({root!r}), run=Path({run!r}), step=step))
clone(timeline, "data", "copy", None, {{}})
"""
)


@pytest.mark.feature("S1")
@pytest.mark.parametrize(("kind", "options"), [*WAYS[:2], ("ext4", {}), ("ext4", IMAGE)])
def test_a_clone_that_is_killed_at_any_step_is_whole_or_not_there(pools, kind, options):
    pool = pools(kind)
    folder = pool.make(options)
    (folder / "file").write_text("one")
    ended = 0
    for number in range(1, 20):
        code = CLONE.format(number=number, root=str(pool.config.root), run=str(pool.config.run))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        ended += done.returncode != 0
        reconcile.reconcile(pool.service)

        assert pool.service.state.unfinished() == []
        if "copy" in [row.name for row in pool.service.all()]:
            assert (pool.service.mount("copy", ME) / "file").read_text() == "one"
            pool.service.unmount("copy", ME)
            pool.service.remove("copy")
            pool.service.purge(next(iter(pool.service.state.unfinished())))
        assert [place.name for place in pool.service.folder.iterdir()] == ["data"]
        (folder / "file").write_text("one")  # nothing stands still
        if done.returncode == 0:
            break

    assert ended == (3 if kind != "ext4" else 12 if options else 13)


STOPPED = """
import os, signal
from pathlib import Path
from orlop import engine
from orlop.kernel import reflink
from orlop.volumes.rewind import clone
reflink.is_possible = lambda folder: True
reflink.clone = lambda source, target: os.kill(os.getpid(), signal.SIGKILL)
clone(engine.timeline(engine.Config(root=Path({root!r}), run=Path({run!r}))), "data", "copy", None, {{"thin": "true"}})
"""


@pytest.mark.parametrize("used", [True, False])
def test_a_filesystem_goes_on_when_the_process_that_froze_it_is_killed(pools, used):
    pool = pools("xfs")
    folder = pool.make({"size": "300m", "thin": "true"})
    (folder / "file").write_text("one")
    if not used:
        pool.service.unmount("data", ME)
    code = STOPPED.format(root=str(pool.config.root), run=str(pool.config.run))

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)

    assert done.returncode == -signal.SIGKILL, done.stderr
    folder = pool.service.mount("data", ME)
    written = subprocess.run(["dd", "if=/dev/zero", f"of={folder}/new", "bs=4k", "count=1", "conv=fsync"], timeout=10)
    assert written.returncode == 0
    reconcile.reconcile(pool.service)
    assert [place.name for place in pool.service.folder.iterdir()] == ["data"]


class Told:
    """Hooks that remember what happened."""

    def __init__(self) -> None:
        self.story: list[str] = []

    def before(self) -> bool:
        self.story.append("before")
        return True

    def after(self) -> None:
        self.story.append("after")


@pytest.mark.part("S4")
@pytest.mark.parametrize(("kind", "how"), [("btrfs", "subvolume"), ("ext4", "copy of unused")])
def test_users_are_told_of_a_clone_once(pools, kind, how):
    pool, told = pools(kind), Told()
    pool.make({})

    clone(pool.timeline, "data", "copy", None, {}, told)

    assert told.story == ["before", "after"]
    assert pool.how() == [f"{how}+hooks"]


def test_the_past_of_the_original_is_not_taken_for_that_of_the_clone(pools):
    pool = pools("xfs")
    folder = pool.make({"size": "300m", "thin": "true"})
    (folder / "file").write_text("one")
    pool.timeline.take("data")
    (folder / "file").write_text("two")

    pool.clone("data", "copy")
    image = pool.config.root / "volumes/copy/image"
    before = image.with_suffix(".cloned").exists()
    made, _ = pool.timeline.take("copy")
    pool.timeline.restore(made, pool.config.run / "out")

    assert (before, image.with_suffix(".cloned").exists()) == (True, False)
    assert (pool.config.run / "out/file").read_text() == "two"
