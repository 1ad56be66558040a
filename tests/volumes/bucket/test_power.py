"""A host with a volume of a bucket loses its power: what programs had synced in there is on its disk."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.power import Disk
from tests.volumes.bucket import test_lazy as lazily
from tests.volumes.bucket.test_driver import DATA, Host

from orlop.kernel import precontent

pytestmark = [
    pytest.mark.part("D9"),
    pytest.mark.skipif(os.geteuid() != 0, reason="filesystems need root"),
]


@pytest.fixture(params=["ext4", "xfs", "btrfs"])
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Disk]:
    disk = Disk(tmp_path, request.param, "2G")
    yield disk
    disk.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Host]:
    (tmp_path / "bucket").mkdir()
    host = Host(tmp_path, tmp_path / "bucket", "other")
    yield host
    host.mounter.unmount(host.mounts / DATA.key)


def _host(disk: Disk, tmp_path: Path) -> Host:
    (tmp_path / "bucket").mkdir(exist_ok=True)
    return Host(disk.place, tmp_path / "bucket", "one")


def _write(path: Path, text: str, *, synced: bool = True) -> None:
    with path.open("w") as file:
        file.write(text)
        file.flush()
        if synced:
            os.fsync(file.fileno())


def _lose_power(disk: Disk, host: Host, tmp_path: Path) -> Host:
    disk.cut()
    host.die()
    disk.come_back()
    subprocess.run(["rm", "-rf", disk.place / "one/run"], check=True)  # is in memory on a real host
    return _host(disk, tmp_path)


def _used(disk: Disk, tmp_path: Path) -> Host:
    """A host that has shipped something, and has more that was synced."""
    host = _host(disk, tmp_path)
    host.driver.create(DATA)
    folder = host.mount()
    _write(folder / "file", "shipped")
    host.use.ship(host.session())
    _write(folder / "file", "synced")
    _write(folder / "new", "new")
    _write(folder / "lost", "not synced", synced=False)
    return host


def test_what_was_synced_is_there_when_the_host_is_back(disk: Disk, tmp_path: Path) -> None:
    host = _lose_power(disk, _used(disk, tmp_path), tmp_path)

    folder = host.mount()
    assert (folder / "file").read_text() == "synced"
    assert (folder / "new").read_text() == "new"
    host.unmount()


def test_what_was_not_shipped_is_kept_when_another_host_went_on(disk: Disk, tmp_path: Path, other: Host) -> None:
    host = _lose_power(disk, _used(disk, tmp_path), tmp_path)
    other.time.now += 1000
    there = other.mount()
    assert (there / "file").read_text() == "shipped"
    _write(there / "file", "other")
    other.unmount()

    assert (host.mount() / "file").read_text() == "other"
    host.unmount()
    (kept,) = host.driver.status(DATA)["Kept"]
    (tmp_path / "kept").mkdir()
    subprocess.run(["mount", "-o", "loop,ro,nouuid", str(kept), tmp_path / "kept"], check=True)
    try:
        assert (tmp_path / "kept/data/file").read_text() == "synced"
    finally:
        subprocess.run(["umount", tmp_path / "kept"], check=True)


def test_an_end_that_was_acknowledged_needs_nothing_of_the_disk(disk: Disk, tmp_path: Path, other: Host) -> None:
    host = _used(disk, tmp_path)
    host.unmount()
    host = _lose_power(disk, host, tmp_path)

    assert (other.mount() / "lost").read_text() == "not synced"
    other.unmount()
    assert (host.mount() / "lost").read_text() == "not synced"
    host.unmount()
    assert host.driver.status(DATA).get("Kept") is None


def test_what_was_fetched_is_whole_or_fetched_again(disk: Disk, tmp_path: Path, other: Host) -> None:
    other.driver.create(DATA)
    folder = other.mount()
    wanted = {f"{number}": os.urandom(1000 * (number + 1)) for number in range(50)} | {"large": os.urandom(5 << 20)}
    for name, content in wanted.items():
        (folder / name).write_bytes(content)
    other.unmount()
    host = _host(disk, tmp_path)
    host.mount()

    host = _lose_power(disk, host, tmp_path)

    folder = host.mount()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == wanted
    host.unmount()
    assert {path.name: path.read_bytes() for path in other.mount().iterdir()} == wanted
    other.unmount()


@pytest.mark.parametrize("disk", ["ext4"], indirect=True)
@pytest.mark.skipif(not precontent.is_possible(Path("/tmp")), reason="readers can wait since Linux 6.14")
def test_what_is_still_fetched_is_whole_with_what_was_written_and_synced_meanwhile(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB", str(disk.place))
    lab = lazily.Lab(disk.place)
    try:
        lab.made(lazily.tree)
        folder = lab.attach()
        script = "echo new >new; printf x | dd of=large1 conv=notrunc; : >large2; echo >>link; sync -f ."
        subprocess.run(["sh", "-c", script], cwd=folder, check=True, capture_output=True)

        disk.cut()
        lazily.cut_power(lab)
        disk.come_back()
        for path in (disk.place / "lazy/run").glob("*"):
            path.unlink()
        folder = lab.attach()

        assert lazily.is_missing(folder / "large0")
        assert lazily.run("cat", folder / "new") == b"new\n"
        assert lazily.run("cat", folder / "large0") == b"\1" * (18 << 20)
        assert lazily.run("cat", folder / "large1") == b"x" + b"\2" * ((18 << 20) - 1)
        assert lazily.run("cat", folder / "large2") == b""
        assert lazily.run("cat", folder / "folder0/small0") == b"0 " * 3000 + b"\n"
    finally:
        lab.close()
