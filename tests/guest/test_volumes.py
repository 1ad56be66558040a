"""Volumes on network filesystems and in grown images, with orlop's own verbs and a kernel that has it all."""

import os
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.guest.servers import USER, Servers

from orlop.kernel.mounter import KernelMounter
from orlop.volumes.driver import Volume, VolumeDriver
from orlop.volumes.local import LocalDriver


@pytest.fixture
def driver(tmp_path: Path) -> VolumeDriver:
    return LocalDriver(tmp_path)


class Command:
    """The command ``orlop`` on the servers' machine."""

    def __init__(self, servers: Servers) -> None:
        self._machine = servers.machine
        folder = self._machine.folder / "alone"
        self._env = {"ORLOP_ROOT": str(folder), "ORLOP_RUN": "/run/alone", "ORLOP_NO_ENGINE": "1"}

    def __call__(self, *words: str, fails: bool = False) -> str:
        """What it printed, or the error that it has to print."""
        argv = [sys.executable, "-m", "orlop", *words]
        done = self._machine.run(argv, check=not fails, env=self._env, timeout=200)
        assert bool(done.returncode) == fails, done.stdout
        return (done.stderr if fails else done.stdout).strip()

    def mounts(self) -> list[str]:
        """What is mounted below its folder."""
        listed = (self._machine.root / "proc/1/mounts").read_text().splitlines()
        return [line for line in listed if f"{self._env['ORLOP_ROOT']}/" in line]


@pytest.fixture
def orlop(servers: Servers) -> Iterator[Command]:
    command = Command(servers)
    yield command
    command("volume", "rm", "--force", "remote")


Kind = Callable[[Servers], list[str]]


def nfs(servers: Servers) -> list[str]:
    return ["-o", "type=nfs", "-o", "o=addr=127.0.0.1,rw,vers=4.2", "-o", "device=:/export"]


def cifs(servers: Servers) -> list[str]:
    options = f"o=username={USER},password=file:{servers.password},uid=7,file_mode=0640"
    return ["-o", "type=cifs", "-o", options, "-o", "device=//127.0.0.1/share"]


KINDS = pytest.mark.parametrize(("kind", "folder"), [(nfs, "export"), (cifs, "share")], ids=["nfs", "cifs"])


@KINDS
def test_files_go_to_the_server_and_come_back_and_nothing_stays_mounted(
    orlop: Command, servers: Servers, tmp_path: Path, kind: Kind, folder: str
) -> None:
    sent, received = tmp_path / "sent.tar", tmp_path / "received.tar"
    with tarfile.open(sent, "w") as archive:
        archive.add(__file__, "hello")

    orlop("volume", "import", *kind(servers), "remote", str(sent))
    orlop("volume", "export", "--output", str(received), "remote")

    with tarfile.open(received) as archive:
        name = next(name for name in archive.getnames() if name.endswith("hello"))
        assert archive.extractfile(name).read() == Path(__file__).read_bytes()
    assert (getattr(servers, folder) / "hello").read_bytes() == Path(__file__).read_bytes()
    assert orlop.mounts() == []


@KINDS
def test_a_server_that_is_down_is_an_error_soon_and_once_it_is_up_all_is_well(
    orlop: Command, servers: Servers, tmp_path: Path, kind: Kind, folder: str
) -> None:
    (getattr(servers, folder) / "hello").write_text("there")
    orlop("volume", "create", *kind(servers), "remote")
    servers.stop()

    begun = time.monotonic()
    error = orlop("volume", "export", "--output", f"{tmp_path}/out.tar", "remote", fails=True)
    took = time.monotonic() - begun
    left = orlop.mounts()
    servers.start()
    orlop("volume", "export", "--output", f"{tmp_path}/out.tar", "remote")

    assert f"({kind(servers)[1].partition('=')[2]})" in error
    assert took < 100
    assert left == orlop.mounts() == []


@pytest.mark.part("V15")
def test_ext4_grows_while_it_is_mounted(driver: LocalDriver, tmp_path: Path) -> None:
    small, large = (Volume("data", "local", {"size": size}) for size in ("16m", "64m"))
    driver.create(small)
    target = tmp_path / "mounted"
    mounter = KernelMounter()
    mounter.mount(driver.attach(small), target)
    try:
        (target / "file").write_text("kept")
        before = os.statvfs(target).f_blocks

        driver.resize(large, target)

        assert os.statvfs(target).f_blocks > before * 3
        assert (target / "file").read_text() == "kept"
    finally:
        mounter.unmount(target)
