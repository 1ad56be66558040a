"""A second volume like one, made at once where the two can share what they store."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.volumes import pairs

from orlop import engine
from orlop.errors import Conflict, Invalid, NotFound
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


@pytest.mark.parametrize(
    ("kind", "before", "more"),
    [
        ("btrfs", {}, {"size": "16m"}),
        ("xfs", {}, {}),
        ("xfs", {"size": "320m"}, {"size": "300m"}),
        ("xfs", {"size": "300m"}, {"fs": "ext4"}),
        ("ext4", IMAGE, {}),
    ],
)
def test_what_cannot_share_is_cloned_by_a_snapshot(pools, kind, before, more):
    pool = pools(kind)
    (pool.make(before) / "file").write_text("one")

    new = pool.clone("data", "copy", **more)

    assert (new / "file").read_text() == "one"
    (made,) = pool.timeline.all("data")
    assert pool.how() == [f"snapshot {made.short}"]


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


def _shared(image: Path) -> bool:
    found = subprocess.run(["filefrag", "-v", image], check=True, capture_output=True, text=True).stdout
    return "shared" in found


CLONE = """
import os, signal
from pathlib import Path
from orlop import engine
from orlop.volumes.rewind import clone
seen = 0
def step(at):
    global seen
    seen += 1
    if seen == {number}:
        os.kill(os.getpid(), signal.SIGKILL)
timeline = engine.timeline(engine.Config(root=Path({root!r}), run=Path({run!r}), step=step))
clone(timeline, "data", "copy", None, {{}})
"""


@pytest.mark.feature("S1")
@pytest.mark.parametrize(("kind", "options"), WAYS[:2])
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

    assert ended == 3
