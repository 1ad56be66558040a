import contextlib
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from tests.volumes import pairs

from orlop.volumes import image, mirror
from orlop.volumes.mirror import Mirror
from orlop.volumes.shadow import Shadow

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="filesystems need root")


@pytest.fixture
def root(tmp_path):
    """The root of a volume's filesystem, as orlop makes it."""
    image.make(tmp_path / "image", "xfs", 300 << 20, image.Root(), thin=True)
    with image.opened(tmp_path / "image") as folder:
        yield folder


def described(folder: Path) -> dict[str, tuple]:
    """All that can be seen of the files below."""
    found = {}
    for path, names, files in os.walk(folder):
        for name in [".", *names, *files]:
            place = os.path.join(path, name)
            about = os.lstat(place)
            content = Path(place).read_bytes() if os.path.isfile(place) and not os.path.islink(place) else b""
            target = os.readlink(place) if os.path.islink(place) else ""
            attributes = {
                key: os.getxattr(place, key, follow_symlinks=False)
                for key in os.listxattr(place, follow_symlinks=False)
            }
            where = os.path.relpath(place, folder)
            links = about.st_nlink if content else 0
            mode = (about.st_mode, about.st_uid, about.st_gid, about.st_rdev, about.st_mtime_ns, links)
            found[where] = (mode, content, target, str(attributes))
    return found


def scribble(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(b"x")


def disturb(folder: Path, rng: random.Random) -> None:
    """Something that people and programs do to files."""
    names = ["a", "b", "c", "sub", "sub/a", "sub/b", "sub/deep", "sub/deep/a", "other", "other/a"]
    one, other = folder / rng.choice(names), folder / rng.choice(names)
    if one.is_fifo() or other.is_fifo():  # to open one is to wait
        with contextlib.suppress(OSError):
            one.unlink()
        return
    actions = [
        lambda: one.write_bytes(rng.randbytes(rng.randrange(20_000))),
        lambda: scribble(one),
        lambda: os.link(one, other),
        lambda: one.rename(other),
        lambda: one.mkdir(),
        lambda: one.unlink(),
        lambda: one.rmdir(),
        lambda: one.chmod(rng.choice([0o600, 0o755, 0o4711])),
        lambda: os.chown(one, rng.randrange(3), rng.randrange(3)),
        lambda: other.symlink_to(one.name),
        lambda: os.mkfifo(one),
        lambda: os.setxattr(one, "user.note", rng.randbytes(3)),
        lambda: os.truncate(one, rng.randrange(40_000)),
        lambda: os.utime(one, ns=(1, 10**18)),
    ]
    with contextlib.suppress(OSError):
        rng.choice(actions)()


@pytest.mark.parametrize("seed", range(8))
def test_the_shadow_is_like_the_files_whatever_was_done_to_them(root, seed):
    rng, shadow, data = random.Random(seed), Shadow(root), root / "data"

    for _ in range(12):
        for _ in range(rng.randrange(25)):
            disturb(data, rng)
        assert shadow.take([])
        assert described(shadow.folder) == described(data)
        if rng.randrange(2):
            shadow.settle()


def test_what_has_not_changed_is_not_made_again(root, monkeypatch):
    monkeypatch.setattr("orlop.volumes.mirror._JUST_NOW", 0)
    data, shadow = root / "data", Shadow(root)
    for number in range(50):
        (data / str(number)).write_text("x")
    shadow.take([])
    before = {entry.name: entry.stat() for entry in os.scandir(shadow.folder)}

    (data / "7").write_text("y")
    shadow.take([])

    after = {entry.name: entry.inode() for entry in os.scandir(shadow.folder)}
    assert {name for name in before if before[name].st_ino != after[name]} == {"7"}
    was = before["7"]
    with open(shadow.folder / "7", "rb") as file:
        assert shadow.changed(file.fileno(), was.st_ino, was.st_ctime_ns) == [(0, 1)]
        assert shadow.changed(file.fileno(), was.st_ino, was.st_ctime_ns - 1) is None
        assert shadow.changed(file.fileno(), before["8"].st_ino, before["8"].st_ctime_ns) is None


def test_a_file_changed_within_a_tick_of_the_clock_is_looked_at_again(root):
    (root / "data" / "file").write_text("1")
    mirror = Mirror(root / "data", root / "shadow", root / "before")
    mirror.update_all()
    first = (root / "shadow" / "file").stat().st_ino

    mirror.update_all()

    assert (root / "shadow" / "file").stat().st_ino != first


@pytest.mark.part("S4")
@pytest.mark.parametrize("program", [pairs.WRITER, pairs.MAPPER])
def test_the_shadow_is_of_one_moment_while_a_program_writes(root, program):
    shadow, found = Shadow(root), []

    with pairs.written(root / "data", program) as pid:
        for _ in range(15):
            assert shadow.take([pid])
            a, b = pairs.seen(shadow.folder)
            found.append(a)
            assert a - 1 <= b <= a

    assert found == sorted(set(found))


@pytest.mark.parametrize("times", [1, 3])
def test_a_file_that_goes_while_it_is_cloned_and_comes_again_is_cloned_then(root, monkeypatch, times):
    file, left, clone = root / "data/file", iter(range(times)), mirror._clone
    file.write_text("1")
    shadow = Mirror(root / "data", root / "shadow", root / "before")
    shadow.update_all()
    file.write_text("22")

    def vanishing(source, *arguments):
        if next(left, None) is not None:
            raise FileNotFoundError(source)
        clone(source, *arguments)

    monkeypatch.setattr(mirror, "_clone", vanishing)
    shadow.update(["file"])
    assert (root / "shadow/file").read_text() == "22"

    monkeypatch.setattr(mirror, "_clone", lambda *_: (file.unlink(missing_ok=True), os.stat(file)))
    file.write_text("333")
    shadow.update(["file"])
    assert not (root / "shadow/file").exists()


CHURN = """
import os, random, shutil
chance = random.Random()
number = chance.randrange
for folder in range(4):
    os.makedirs(f"tokens/{folder}")
open("tokens/0/token", "w").close()
here = 0
with open("b", "w") as ready:
    ready.write("ready")
while True:
    there = number(4)
    os.rename(f"tokens/{here}/token", f"tokens/{there}/token")
    here = there
    above = f"d{number(4)}"
    folder = f"{above}/s{number(3)}"
    try:
        what = number(9)
        if what < 2:
            os.makedirs(folder, exist_ok=True)
        elif what < 5:
            with open(f"{folder}/f{number(5)}", "wb") as file:
                file.write(b"x" * 5000)
        elif what == 5:
            os.unlink(f"{folder}/f{number(5)}")
        elif what == 6:
            shutil.rmtree(chance.choice([folder, above]), ignore_errors=True)
        elif what == 7:
            os.rename(folder, f"d{number(4)}/s{number(3)}")
        else:
            os.link(f"{folder}/f{number(5)}", f"{folder}/l{number(5)}")
    except OSError:
        pass
"""


@pytest.mark.part("S4")
def test_files_and_folders_that_come_and_go_fail_no_snapshot_and_are_of_one_moment(root):
    shadow = Shadow(root)
    with pairs.written(root / "data", CHURN) as pid:
        for _ in range(60):
            assert shadow.take([pid])
            assert len(list((shadow.folder / "tokens").rglob("token"))) == 1

    assert shadow.take([])
    assert described(shadow.folder) == described(root / "data")


def test_files_and_folders_of_users_that_cannot_be_held_still_fail_no_snapshot_either(root):
    shadow = Shadow(root)
    with subprocess.Popen([sys.executable, "-c", CHURN], cwd=root / "data") as process:
        try:
            for _ in range(60):
                shadow.take([process.pid])
        finally:
            process.kill()

    assert shadow.take([])
    assert described(shadow.folder) == described(root / "data")


def test_users_that_cannot_be_held_still_are_told_of(root):
    with subprocess.Popen(["sleep", "60"], cwd=root / "data") as process:
        try:
            assert not Shadow(root).take([process.pid])
        finally:
            process.kill()


def ending_after(count, call):
    """``call``, which is not answered any more after ``count`` times: as for a process that is killed."""
    left = iter(range(count))

    def answered(*arguments):
        if next(left, None) is None:
            raise KeyboardInterrupt
        call(*arguments)

    return answered


def test_a_shadow_killed_half_way_is_made_good(root):
    data = root / "data"
    for number in range(30):
        (data / str(number)).write_text("1")
    Shadow(root).take([])
    (data / "sub").mkdir()
    for number in range(0, 30, 2):
        (data / str(number)).write_text("22")
    for number in range(5, 15):
        mirror = Mirror(data, root / "shadow", root / "before")
        mirror._replace = ending_after(number, mirror._replace)
        with contextlib.suppress(KeyboardInterrupt):
            mirror.update_all()

    Shadow(root).take([])

    assert described(root / "shadow") == described(data)


def test_a_shadow_that_is_given_up_takes_no_room(root):
    shadow = Shadow(root)
    (root / "data" / "file").write_bytes(os.urandom(1 << 20))
    shadow.take([])

    shadow.drop()

    assert sorted(os.listdir(root)) == ["data"]
