import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.volumes import pairs

from orlop.kernel.mounter import KernelMounter
from orlop.kernel.namespaces import companions
from orlop.mount import Mount
from orlop.volumes import sources
from orlop.volumes.driver import Volume
from orlop.volumes.local import LocalDriver
from orlop.volumes.sources import Was

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="filesystems need root")


@pytest.fixture
def volumes(tmp_path):
    """Makes and mounts a volume of driver ``local`` on a filesystem of a kind; a name and the options choose."""
    mounter, mounted = KernelMounter(), []

    def make(on: str = "", **options: str):
        root = tmp_path / "root"
        if on:
            with open(tmp_path / "disk", "wb") as file:
                file.truncate(400 << 20)
            subprocess.run([f"mkfs.{on}", "-q", str(tmp_path / "disk")], check=True, stdout=subprocess.DEVNULL)
            mounter.mount([Mount(on, str(tmp_path / "disk"), ("loop",))], root)
            mounted.append(root)
        root.mkdir(exist_ok=True)
        driver, volume, target = LocalDriver(root), Volume("data", "local", options), tmp_path / "target"
        driver.create(volume)
        mounter.mount(driver.attach(volume), target)
        mounted.append(target)
        return driver, volume, target

    yield make
    for target in reversed(mounted):
        mounter.unmount(target)


@pytest.fixture
def writing():
    """Starts a program that writes the same numbers to two files."""
    with contextlib.ExitStack() as stack:
        yield lambda folder: stack.enter_context(pairs.written(folder))


@pytest.mark.feature("S1")
@pytest.mark.parametrize(
    ("on", "options", "how"),
    [
        ("", {"size": "300m", "thin": "true"}, "shadow"),
        ("", {"size": "16m", "thin": "true"}, "frozen"),
        ("btrfs", {}, "subvolume"),
    ],
)
def test_files_of_one_moment_are_read_while_a_program_writes_them(volumes, writing, on, options, how):
    driver, volume, target = volumes(on, **options)
    pid = writing(target)
    source = driver.source(volume, target, lambda: [pid])

    for _ in range(5):
        with source.still() as still:
            first = pairs.seen(still.folder)
            time.sleep(0.02)
            again = pairs.seen(still.folder)
        source.settle("snapshot")

        assert first == again
        assert first[0] - 1 <= first[1] <= first[0]
        assert still.how == how


@pytest.mark.feature("S4")
def test_the_users_of_any_volume_can_be_paused(volumes, writing):
    _, _, target = volumes()
    pid = writing(target)
    source = sources.plain(target, lambda: [pid], paused=True)

    with source.still() as still:
        a, b = ((still.folder / name).read_bytes() for name in "ab")
        time.sleep(0.05)
        assert ((target / "a").read_bytes(), (target / "b").read_bytes()) == (a, b)

    assert still.how == "paused"
    assert source.ahead() == target
    time.sleep(0.05)
    assert (target / "a").read_bytes() != a


def fill(folder: Path) -> None:
    """Not even a small file can be made afterwards."""
    for size in (1 << 20, 4096):
        number = 0
        with contextlib.suppress(OSError):
            while True:
                (folder / f"{size}-{number}").write_bytes(bytes(size))
                number += 1


@pytest.mark.feature("S1")
@pytest.mark.parametrize(("users", "how"), [([], "unused"), ([os.getpid()], "frozen")])
def test_a_full_volume_that_has_no_room_for_a_shadow_is_read_all_the_same(volumes, users, how):
    driver, volume, target = volumes(size="300m", thin="true")
    (target / "file").write_text("kept")
    source = driver.source(volume, target, lambda: users)
    with source.still():
        pass
    source.settle("snapshot")
    fill(target)

    with source.still() as still:
        assert (still.how, (still.folder / "file").read_text()) == (how, "kept")
        assert source.is_changed
        assert source.changed_since("file")
    source.settle("snapshot")


PAUSER = """
import sys, time
from orlop.kernel import pause
with pause.paused([int(sys.argv[1])]):
    print("paused", flush=True)
    time.sleep(60)
"""


def test_users_go_on_when_the_process_that_paused_them_is_killed(volumes, writing):
    _, _, target = volumes()
    pid = writing(target)
    pauser = subprocess.Popen([sys.executable, "-c", PAUSER, str(pid)], stdout=subprocess.PIPE)
    with pauser.stdout:
        pauser.stdout.readline()
    still = (target / "a").read_bytes()
    time.sleep(0.1)
    assert (target / "a").read_bytes() == still

    pauser.kill()
    pauser.wait()

    end = time.monotonic() + 5
    while (target / "a").read_bytes() == still:
        assert time.monotonic() < end


@pytest.mark.parametrize(("users", "how"), [([1], "live"), ([], "unused")])
def test_a_snapshot_says_what_it_had(volumes, users, how):
    _, _, target = volumes()
    source = sources.plain(target, lambda: users, paused=False)

    with source.still() as still:
        assert still.how == how
    assert source.ahead() is None


@pytest.mark.part("S3")
@pytest.mark.parametrize(("on", "options"), [("", {"size": "300m", "thin": "true"}), ("btrfs", {})])
def test_what_changed_since_a_file_was_saved_last_is_known(volumes, on, options):
    driver, volume, target = volumes(on, **options)
    (target / "file").write_text("before")
    source = driver.source(volume, target, list)
    time.sleep(0.06)  # what changed just now is made anew
    with source.still() as still:
        was = (still.folder / "file").stat()
    source.settle("snapshot")

    (target / "file").write_text("after!")
    with source.still() as still:
        assert (still.folder / "file").read_text() == "after!"
        with open(still.folder / "file", "rb") as file:
            fd = file.fileno()
            assert source.changed("file", fd, Was("snapshot", was.st_ino, was.st_ctime_ns)) == [(0, 6)]
            assert source.changed("file", fd, Was("snapshot", was.st_ino + 10_000, was.st_ctime_ns)) is None
            assert source.changed("file", fd, Was("an earlier one", was.st_ino, was.st_ctime_ns - 1)) is None
    source.settle("snapshot")
    driver.detach(volume)


def test_a_volume_goes_with_all_that_was_kept_of_it(volumes):
    driver, volume, target = volumes("btrfs")
    for _ in range(2):
        source = driver.source(volume, target, list)
        with source.still():
            (target / "file").write_text("x")
        source.settle("snapshot")
    with source.still():
        pass
    KernelMounter().unmount(target)

    driver.remove(volume)

    assert list((target.parent / "root" / "data").iterdir()) == []


def test_everybody_in_a_namespace_is_a_companion():
    with subprocess.Popen(["unshare", "-m", "sh", "-c", "sleep 60 & exec sleep 60"]) as process:
        until = time.monotonic() + 30
        try:
            # Before they are what they shall be, they are copies of the shell.
            while _commands(found := companions([process.pid])) != ["sleep", "sleep"]:
                assert time.monotonic() < until, _commands(found)
                time.sleep(0.01)
        finally:
            for pid in {process.pid, *companions([process.pid])}:
                os.kill(pid, signal.SIGKILL)

    assert os.getpid() not in found


def _commands(pids: list[int]) -> list[str]:
    return [Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids]
