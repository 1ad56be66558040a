"""``orlop snapshot mount``: a snapshot as a folder, through the kernel."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orlop.kernel.mountinfo import ours

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root"),
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="no FUSE here"),
]
CONTENT = os.urandom(5_000_000) + bytes(3_000_000)


@pytest.fixture
def files(orlop, root) -> Path:
    """The files of a volume ``data`` that has all kinds, and a snapshot."""
    orlop("volume", "create", "data")
    folder = root / "volumes/data/_data"
    (folder / "sub").mkdir(mode=0o750)
    (folder / "sub/big").write_bytes(CONTENT)
    os.chown(folder / "sub/big", 7, 8)
    os.utime(folder / "sub/big", ns=(1, 1_234_567_890_123_456_789))
    os.setxattr(folder / "sub/big", "user.colour", b"blue")
    (folder / "link").symlink_to("sub/big")
    os.mkfifo(folder / "pipe")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\nname")).write_text("odd")
    orlop("snapshot", "create", "data")
    return folder


@pytest.fixture
def view(files, environment, tmp_path) -> Iterator[Callable[[], subprocess.Popen]]:
    """Mounts the snapshot at ``tmp_path / "view"``; returns the process."""
    folder, started = tmp_path / "view", []
    folder.mkdir()

    def start() -> subprocess.Popen:
        argv = [sys.executable, "-m", "orlop", "snapshot", "mount", "data@latest", str(folder)]
        with (tmp_path / "log").open("w") as log:
            started.append(subprocess.Popen(argv, env=environment, stdout=log, stderr=log))
        until = time.monotonic() + 20
        while not is_mounted(folder):
            assert started[-1].poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < until
            time.sleep(0.02)
        return started[-1]

    yield start
    subprocess.run(["umount", "-l", folder], check=False, capture_output=True)
    for process in started:
        process.kill()
        process.wait()


def is_mounted(folder: Path) -> bool:
    return str(folder) in {entry.target for entry in ours()}


@pytest.mark.feature("S1")
@pytest.mark.parametrize("how", ["ctrl-C", "umount"])
def test_a_snapshot_is_seen_as_it_was_until_somebody_has_seen_enough(files, view, tmp_path, how):
    process, seen = view(), tmp_path / "view"
    (files / "sub/big").write_text("changed since")

    big = seen / "sub/big"
    about = big.stat()
    with big.open("rb") as file:
        assert file.read() == CONTENT
        file.seek(4_999_990)
        assert file.read(20) == CONTENT[4_999_990:5_000_010]
    assert (about.st_uid, about.st_gid, about.st_mtime_ns) == (7, 8, 1_234_567_890_123_456_789)
    assert (seen / "sub").stat().st_mode & 0o7777 == 0o750
    assert (os.readlink(seen / "link"), (seen / "pipe").is_fifo()) == ("sub/big", True)
    assert os.getxattr(big, "user.colour") == b"blue"
    assert set(os.listdir(os.fsencode(seen))) == {b"sub", b"link", b"pipe", b"\xff\nname"}
    assert (seen / os.fsdecode(b"\xff\nname")).read_text() == "odd"
    with pytest.raises(OSError) as refused:
        (seen / "new").write_text("")
    assert refused.value.errno == errno.EROFS

    if how == "ctrl-C":
        process.send_signal(signal.SIGINT)
    else:
        subprocess.run(["umount", seen], check=True)

    assert process.wait(10) == 0
    assert not is_mounted(seen)


def test_what_a_killed_one_leaves_behind_is_removed_by_umount(view, tmp_path):
    process = view()

    process.kill()
    process.wait()
    with pytest.raises(OSError) as dead:
        os.listdir(tmp_path / "view")
    subprocess.run(["umount", tmp_path / "view"], check=True)

    assert dead.value.errno == errno.ENOTCONN
    view()
    assert (tmp_path / "view/sub/big").read_bytes() == CONTENT


def test_a_damaged_file_is_an_error_and_is_told(view, root, tmp_path):
    pack = max(root.glob("snapshots/data/*/*"), key=lambda path: path.stat().st_size)
    pack.write_bytes(pack.read_bytes()[:1000] + bytes(1000) + pack.read_bytes()[2000:])

    view()
    with pytest.raises(OSError) as damaged:
        (tmp_path / "view/sub/big").read_bytes()

    assert damaged.value.errno == errno.EIO
    assert pack.name in (tmp_path / "log").read_text()


def test_a_folder_with_something_in_it_is_refused(orlop, files, tmp_path):
    refused = orlop("snapshot", "mount", "data@latest", str(tmp_path), status=1)

    assert "is no empty folder" in refused.stderr
