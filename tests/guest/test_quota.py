"""Folders that the host's filesystem limits (``size=`` with ``fs=host``): project quotas of an XFS and of an ext4."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.guest.plugin import Plugin
from tests.journeys.lab import Lab

from orlop.errors import Invalid
from orlop.kernel import quota
from orlop.testing.drivers import VolumeDriverContract
from orlop.testing.machine import Machine
from orlop.volumes.driver import Volume, VolumeDriver
from orlop.volumes.local import LocalDriver

MAKE = {"xfs": ["mkfs.xfs", "-q"], "ext4": ["mkfs.ext4", "-q", "-O", "quota,project"]}
SIZE = 16 << 20
# By default no container has it, and ext4 lets whoever has it write beyond the limit.
UNPRIVILEGED = ["setpriv", "--bounding-set", "-sys_resource"]


@pytest.fixture(scope="session", params=MAKE)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def disk(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A filesystem with project quotas."""
    folder = tmp_path_factory.mktemp(kind)
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(mounting(kind, folder / "image", disk), check=True)
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def mounting(kind: str, image: Path, disk: Path) -> list[str]:
    """How to mount a new filesystem in ``image`` that has them."""
    with image.open("wb") as file:
        file.truncate(400 << 20)
    subprocess.run([*MAKE[kind], str(image)], check=True)
    return ["mount", "-o", "loop,prjquota", str(image), str(disk)]


@pytest.fixture
def driver(disk: Path, tmp_path: Path) -> LocalDriver:
    root = disk / tmp_path.name
    root.mkdir()
    return LocalDriver(root)


def limited(size: int = SIZE, name: str = "data") -> Volume:
    return Volume(name, "local", {"size": str(size), "fs": "host"})


def place(driver: VolumeDriver, volume: Volume) -> Path:
    (mount,) = driver.attach(volume)
    return Path(mount.source)


def filled(folder: Path) -> int:
    """Write until that is an error; how many bytes there are then."""
    argv = ["dd", "if=/dev/zero", f"of={folder}/fill", "bs=1M", "conv=notrunc,fsync", "oflag=append"]
    done = subprocess.run([*UNPRIVILEGED, *argv], capture_output=True, text=True, check=False)
    assert any(os.strerror(number) in done.stderr for number in (errno.ENOSPC, errno.EDQUOT)), done.stderr
    return (folder / "fill").stat().st_size


class TestLimitedByTheHost(VolumeDriverContract):
    options = {"size": "8m", "fs": "host", "uid": "7"}
    refused = {"thin": "true", "size": "lots"}

    @pytest.fixture
    def driver(self, driver: LocalDriver) -> VolumeDriver:
        return driver


@pytest.mark.part("V15")
def test_the_limit_holds_df_is_honest_and_other_volumes_have_their_own(driver: LocalDriver) -> None:
    one, other = limited(), limited(name="other")
    driver.create(one)
    driver.create(other)
    folder = place(driver, one)

    assert SIZE - (1 << 20) <= filled(folder) <= SIZE
    told = os.statvfs(folder)
    assert told.f_blocks * told.f_frsize == SIZE
    assert told.f_bavail * told.f_frsize < 1 << 20
    assert SIZE - (1 << 20) <= driver.usage(one, None) <= SIZE
    assert driver.usage(other, None) < 1 << 20
    (place(driver, other) / "file").write_text("there is room")


@pytest.mark.part("V15")
def test_it_grows_while_it_is_used_and_does_not_shrink(driver: LocalDriver) -> None:
    driver.create(limited())
    folder = place(driver, limited())
    before = filled(folder)

    driver.resize(limited(SIZE * 2), folder)

    assert before + SIZE - (2 << 20) <= filled(folder) <= SIZE * 2
    with pytest.raises(Invalid, match="grow, not shrink"):
        driver.resize(limited(SIZE), folder)
    assert os.statvfs(folder).f_blocks * os.statvfs(folder).f_frsize == SIZE * 2


def test_a_removed_volume_leaves_no_limit_behind(driver: LocalDriver) -> None:
    driver.create(limited())
    project = _project(place(driver, limited()))
    assert _counted(driver._root, project)[0] == SIZE

    driver.remove(limited())

    assert _counted(driver._root, project) == (0, 0)


def test_a_creation_that_was_killed_half_way_is_finished_with_the_project_it_has(
    driver: LocalDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(quota, "_set", killed)
        with pytest.raises(KeyboardInterrupt):
            driver.create(limited())
    begun = _project(driver._root / "data/_data.new")

    driver.create(limited())

    folder = place(driver, limited())
    assert _project(folder) == begun
    assert os.statvfs(folder).f_blocks * os.statvfs(folder).f_frsize == SIZE


def test_where_the_place_is_in_a_project_already_that_one_is_left_alone(driver: LocalDriver) -> None:
    above = driver._root
    quota.limit(above, SIZE * 4)

    with pytest.raises(Invalid, match="is in no project itself"):
        driver.create(limited())
    driver.remove(limited())

    assert quota.limit_of(above) == SIZE * 4


@pytest.fixture
def plugin(kind: str, tmp_path: Path) -> Iterator[Plugin]:
    """A daemon on a machine, with its root on a filesystem with project quotas; it has a volume ``data``."""
    with Machine(tmp_path / "machine", "limited") as machine:
        lab = Lab(machine)
        lab.root.mkdir()
        machine.run(mounting(kind, tmp_path / "image", lab.root), timeout=100)
        lab.serve()
        plugin = Plugin(lab)
        plugin.create("data", size="16m", fs="host")
        yield plugin


@pytest.mark.part("V15")
def test_an_engine_gets_a_volume_that_is_limited_and_grows(plugin: Plugin) -> None:
    folder = plugin.mount("data")

    before = filled(folder)
    orlop(plugin.lab, "volume", "update", "--opt", "size=32m", "data")

    assert SIZE - (1 << 20) <= before <= SIZE < filled(folder) <= SIZE * 2
    plugin.unmount("data")
    plugin.remove("data")
    assert plugin.check() == "all is well"


@pytest.mark.part("V15")
def test_it_is_told_while_nothing_limits_a_volume_any_more(plugin: Plugin, tmp_path: Path) -> None:
    lab, machine = plugin.lab, plugin.lab.machine
    limited = plugin.status("data"), plugin.check()
    lab.kill_orlop()
    machine.run(["umount", str(lab.root)])

    machine.run(["mount", "-o", "loop,noquota", str(tmp_path / "image"), str(lab.root)])
    lab.serve()
    unlimited = plugin.status("data"), plugin.check()
    (plugin.mount("data") / "file").write_text("it can be used all the same")
    plugin.unmount("data")

    assert "Degraded" not in limited[0]
    assert limited[1] == "all is well"
    assert "nothing limits it" in str(unlimited[0]["Degraded"])
    assert "data: nothing limits it: mount the filesystem of" in unlimited[1]
    assert "'data': nothing limits it" in lab.log.read_text()


@pytest.mark.part("V15", "S1")
def test_a_limited_volume_goes_back_to_its_snapshot_and_stays_limited(plugin: Plugin) -> None:
    folder = plugin.mount("data")
    (folder / "kept").write_text("as it was")
    made = orlop(plugin.lab, "snapshot", "create", "data").strip()
    (folder / "kept").write_text("as it is now")
    filled(folder)
    plugin.unmount("data")

    orlop(plugin.lab, "volume", "rollback", "data", made.partition("@")[2])

    folder = plugin.mount("data")
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"kept": "as it was"}
    assert SIZE - (1 << 20) <= filled(folder) <= SIZE
    plugin.unmount("data")
    plugin.remove("data")
    assert plugin.check() == "all is well"


def orlop(lab: Lab, *words: str) -> str:
    """What the command prints."""
    env = {"ORLOP_ROOT": str(lab.root), "ORLOP_NO_ENGINE": "1"}
    return lab.machine.run([sys.executable, "-m", "orlop", *words], env=env, timeout=200).stdout


def _project(folder: Path) -> int:
    with quota._opened(folder) as fd:
        return quota._own(fd)


def _counted(folder: Path, project: int) -> tuple[int, int]:
    with quota._opened(folder) as fd:
        return quota._get(fd, project)
