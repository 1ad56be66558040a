"""Every driver of orlop's own keeps the contract that drivers of other packages are held to."""

import stat
import subprocess
from pathlib import Path

import pytest

from orlop.errors import Invalid, NoSpace, Unavailable
from orlop.mount import Mount
from orlop.testing.drivers import VolumeDriverContract
from orlop.volumes.driver import Volume, VolumeDriver
from orlop.volumes.local import LocalDriver
from orlop.volumes.memory import TmpfsDriver
from orlop.volumes.secret import SecretDriver


@pytest.fixture
def driver(tmp_path: Path) -> VolumeDriver:
    return LocalDriver(tmp_path)


def local(**options: str) -> Volume:
    return Volume("data", "local", options)


class TestFolder(VolumeDriverContract):
    options = {"uid": "7", "mode": "0700"}
    refused = {"uid": "root", "mode": "9", "size": "lots", "mountpoint": "../up"}

    @pytest.fixture
    def driver(self, tmp_path: Path) -> VolumeDriver:
        return LocalDriver(tmp_path)


class TestSizedExt4(TestFolder):
    options = {"size": "8m"}
    refused = {"fs": "fat", "size": "0"}


class TestSizedXfs(TestFolder):
    options = {"size": "300m", "thin": "true"}
    refused = {"thin": "maybe", "size": "100k"}


class TestHostPath(TestFolder):
    options = {}
    refused = {"mountpoint": "relative"}

    @pytest.fixture
    def volume(self, tmp_path: Path) -> Volume:
        return Volume("data", "local", {"mountpoint": f"{tmp_path}/srv"}, {}, "data~2")

    def test_removing_one_leaves_the_other(self, driver: VolumeDriver, volume: Volume) -> None:
        driver.create(volume)
        Path(volume.options["mountpoint"], "file").write_text("kept")

        driver.remove(volume)

        assert Path(volume.options["mountpoint"], "file").read_text() == "kept"


class TestDockersOptions(TestFolder):
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=8m,uid=7"}
    refused = {"o": "password=hunter2"}

    def test_bad_values_are_refused_before_anything_is_made(self, driver: VolumeDriver, volume: Volume) -> None:
        with pytest.raises(Invalid, match="must name a secret") as caught:
            driver.create(Volume("data", "local", {**self.options, "o": "user=u,password=hunter2"}))

        assert "hunter2" not in str(caught.value)


class TestWhateverMountCanMount(VolumeDriverContract):
    options = {"type": "nfs", "device": ":/export", "o": "addr=localhost,vers=4.2,soft"}

    @pytest.fixture
    def driver(self, tmp_path: Path) -> VolumeDriver:
        return LocalDriver(tmp_path)


class TestTmpfs(VolumeDriverContract):
    options = {"size": "8m", "mode": "0750", "uid": "7", "gid": "8", "nr_inodes": "100"}
    refused = {"size": "x", "mode": "99999", "nr_inodes": "-1"}

    @pytest.fixture
    def driver(self) -> VolumeDriver:
        return TmpfsDriver()


class TestSecret(VolumeDriverContract):
    options = {"password": "file:/etc/hostname", "uid": "7"}
    refused = {"token": "hunter2", "uid": "x"}

    @pytest.fixture
    def driver(self, tmp_path: Path) -> VolumeDriver:
        # pytest's folder is on a disk; the journeys prove that a real one must be in memory.
        from orlop.kernel import syscalls as sc

        return SecretDriver(tmp_path / "run", (sc.magic(tmp_path),))

    def test_removing_one_leaves_the_other(self, driver: VolumeDriver, volume: Volume, tmp_path: Path) -> None:
        other = Volume("other", "secret", dict(self.options))
        driver.attach(volume)
        driver.attach(other)

        driver.remove(volume)

        assert [path.name for path in (tmp_path / "run").iterdir()] == ["other"]


@pytest.mark.part("V12")
@pytest.mark.parametrize(
    ("options", "missing"),
    [({"type": "nfs"}, "device"), ({"device": ":/x"}, "type"), ({"o": "addr=1", "type": "nfs"}, "device")],
)
def test_dockers_options_need_each_other_in_dockers_words(
    driver: VolumeDriver, options: dict[str, str], missing: str
) -> None:
    with pytest.raises(Invalid, match=f'missing required option: "{missing}"'):
        driver.create(local(**options))


def test_options_of_two_forms_exclude_each_other(driver: VolumeDriver) -> None:
    with pytest.raises(Invalid, match="'size' and 'mountpoint' exclude each other"):
        driver.create(local(size="8m", mountpoint="/srv/x"))


def test_a_folder_has_the_owner_and_mode_that_were_asked_for_once(tmp_path: Path, driver: VolumeDriver) -> None:
    volume = local(uid="7", gid="8", mode="02750")
    driver.create(volume)
    found = (tmp_path / "data/_data").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (7, 8, 0o2750)

    (tmp_path / "data/_data").chmod(0o711)
    driver.create(volume)

    assert stat.S_IMODE((tmp_path / "data/_data").stat().st_mode) == 0o711


@pytest.mark.parametrize(("size", "fs"), [("8m", "ext4"), ("300m", "xfs"), ("1g", "xfs")])
def test_the_filesystem_follows_the_size_and_is_sound(tmp_path: Path, driver: VolumeDriver, size: str, fs: str) -> None:
    volume = local(size=size, mode="01777", uid="33", gid="34", thin="true")
    driver.create(volume)

    image = tmp_path / "data/image"
    check = ["xfs_repair", "-n"] if fs == "xfs" else ["e2fsck", "-fn"]
    inside = ("nouuid", "X-mount.subdir=data") if fs == "xfs" else ()
    assert list(driver.attach(volume)) == [Mount(fs, str(image), ("loop", *inside))]
    subprocess.run([*check, str(image)], check=True, capture_output=True)


def test_a_limit_by_the_host_needs_a_filesystem_that_can_and_nothing_is_left(
    tmp_path: Path, driver: VolumeDriver
) -> None:
    limited = local(size="8m", fs="host")

    # Memory has no project quotas; with a kernel that has them, tests/guest/test_quota.py.
    subprocess.run(["mount", "-t", "tmpfs", "none", str(tmp_path)], check=True)
    try:
        with pytest.raises(Invalid, match=r"cannot limit a folder, which 'fs=host' asks for .*; or choose fs=xfs or"):
            driver.create(limited)
        driver.remove(limited)
        assert list((tmp_path / "data").iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("options", [{"fs": "host"}, {"fs": "host", "size": "8m", "thin": "true"}])
def test_a_limit_by_the_host_is_one_and_reserves_nothing(driver: VolumeDriver, options: dict[str, str]) -> None:
    with pytest.raises(Invalid, match=r"need 'size'|which reserves nothing"):
        driver.create(local(**options))


def test_space_is_reserved_unless_the_volume_is_thin(tmp_path: Path, driver: VolumeDriver) -> None:
    driver.create(local(size="64m"))
    driver.create(Volume("thin", "local", {"size": "64m", "thin": "true"}))

    assert (tmp_path / "data/image").stat().st_blocks * 512 >= 64 << 20
    assert (tmp_path / "thin/image").stat().st_blocks * 512 < 16 << 20


def test_more_than_the_host_has_is_refused_and_nothing_is_left(tmp_path: Path, driver: VolumeDriver) -> None:
    with pytest.raises(NoSpace, match="no room for"):
        driver.create(local(size="4000t"))

    assert not list((tmp_path / "data").iterdir())


def test_removing_stops_at_a_mount_inside_the_volume(tmp_path: Path, driver: VolumeDriver) -> None:
    driver.create(local())
    inside = tmp_path / "data/_data/inside"
    inside.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(inside)], check=True)
    try:
        (inside / "precious").write_text("kept")

        with pytest.raises(Unavailable, match="inside"):
            driver.remove(local())

        assert (inside / "precious").read_text() == "kept"
    finally:
        subprocess.run(["umount", str(inside)], check=True)


def test_a_secret_that_is_not_there_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    from orlop.kernel import syscalls as sc

    secrets = SecretDriver(tmp_path / "run", (sc.magic(tmp_path),))

    with pytest.raises(Unavailable, match="'/nowhere/key'"):
        secrets.attach(Volume("s", "secret", {"a": "file:/etc/hostname", "b": "file:/nowhere/key"}))

    assert not list((tmp_path / "run").iterdir())


def test_secrets_are_never_written_to_a_disk(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="in memory only"):
        SecretDriver(tmp_path / "run").attach(Volume("s", "secret", {"a": "file:/etc/hostname"}))
