"""Volumes whose files are fetched while they are used: what readers see, whatever is killed, and what is shipped."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from tests.volumes.bucket.test_driver import Host
from tests.volumes.bucket.test_keeper import eventually

from orlop.errors import Busy
from orlop.kernel import precontent
from orlop.snapshots import placeholders
from orlop.volumes import image
from orlop.volumes.bucket import lease
from orlop.volumes.driver import Volume

pytestmark = [
    pytest.mark.part("D9"),
    pytest.mark.skipif(os.geteuid() != 0, reason="filesystems need root"),
    pytest.mark.skipif(not precontent.is_possible(Path("/tmp")), reason="readers can wait since Linux 6.14"),
]
DATA = Volume("data", "bucket", {"size": "600m", "lease": "4", "lazy": "true"}, created="2026-01-01T00:00:00Z")
SOURCE = Volume("data", "bucket", {"size": "600m", "lease": "4", "lazy": "false"}, created="2026-01-01T00:00:00Z")
# Another host's keeper: a process of its own, which can be killed. It fetches nothing before the file "go" is there,
# and what nobody waits for not before "all" is.
KEEPER = """
import logging, os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from tests.volumes.bucket.test_driver import Host
from tests.volumes.bucket.test_lazy import DATA
from orlop.snapshots.placeholders import Contents
from orlop.volumes.bucket import hydrator, lease
from orlop.volumes.bucket.keeper import Keeper
logging.basicConfig(level=logging.INFO)
folder, name = Path(sys.argv[1]), sys.argv[2]
host = Host(folder, folder / "bucket", name, volume=DATA)
host.use.clock = lease.Clock()
fetch, left = Contents.fetch, hydrator.Hydrator._left

def wait(path):
    while not path.exists():
        time.sleep(0.01)

def slowly(self, parts):
    wait(folder / "go")
    return fetch(self, parts)

def later(self):
    if not (folder / "all").exists():
        while not ((folder / "all").exists() or self._stopped.is_set()):
            time.sleep(0.01)
    yield from left(self)

Contents.fetch, hydrator.Hydrator._left = slowly, later
Keeper(host.use).run()
"""


class Lab:
    """A volume that one host has made; another attaches it, with a keeper that waits to be told."""

    def __init__(self, folder: Path):
        self.folder, self.keepers, self.hosts = folder, [], []
        (folder / "bucket").mkdir()

    def host(self, name: str, volume: Volume = DATA, step=str) -> Host:
        host = Host(self.folder, self.folder / "bucket", name, volume=volume, step=step)
        host.use.clock = lease.Clock()
        self.hosts.append(host)
        return host

    def made(self, fill) -> None:
        host = self.host("source", SOURCE)
        host.driver.create(SOURCE)
        fill(host.mount())
        host.unmount()

    def attach(self, *, go: bool = True, name: str = "lazy") -> Path:
        """The mounted volume, of which nothing is fetched but what is asked for (not even that without ``go``)."""
        self.lazy = self.host(name)
        if go:
            (self.folder / "go").touch()
        self.keep(name)
        return self.lazy.mount()

    def keep(self, name: str = "lazy") -> "subprocess.Popen[bytes]":
        argv = [sys.executable, "-c", KEEPER, str(self.folder), name, str(Path(__file__).parents[3])]
        with (self.folder / "keeper.log").open("ab") as log:
            keeper = subprocess.Popen(argv, stdout=log, stderr=log)
        self.keepers.append(keeper)
        return keeper

    def kill_keeper(self) -> None:
        self.keepers[-1].kill()
        self.keepers[-1].wait()

    def holders(self) -> list[int]:
        """The processes that hold readers back, for the volumes of this lab."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if b"orlop.volumes.bucket.holding" in (process / "cmdline").read_bytes() and self._holds(process):
                    found.append(int(process.name))
        return sorted(found)

    def _holds(self, process: Path) -> bool:
        """By the socket that it listens at."""
        sockets = {os.readlink(file) for file in (process / "fd").iterdir()}
        for line in Path("/proc/net/unix").read_text().splitlines():
            words = line.split()
            if f"socket:[{words[6]}]" in sockets and len(words) > 7:
                return words[7].endswith("data~.hold") and self._is_ours(process)
        return False

    def _is_ours(self, process: Path) -> bool:
        return any(str(self.folder) in environment for environment in [(process / "environ").read_text()])

    def kill_holders(self) -> None:
        for pid in self.holders():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def fetch_all(self) -> None:
        (self.folder / "all").touch()
        (self.folder / "go").touch()

    def complete(self) -> None:
        self.fetch_all()
        eventually(lambda: self.lazy.use.copy("data").base.complete)

    def close(self) -> None:
        self.kill_holders()
        for host in self.hosts:
            for session in host.use.sessions.all():
                host.use.sessions.end(session)
        for keeper in self.keepers:
            keeper.kill()
            keeper.wait()
        for host in self.hosts:
            host.mounter.unmount(host.mounts / "data")


@pytest.fixture
def lab(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB", str(tmp_path))
    lab = Lab(tmp_path)
    yield lab
    lab.close()


def run(*argv: object) -> bytes:
    """What a program says; it has files of its own, as containers have."""
    return subprocess.run([str(word) for word in argv], capture_output=True, check=True, timeout=60).stdout


def is_missing(path: Path) -> bool:
    return placeholders.of(str(path)) is not None


SMALL, LARGE = os.urandom(5000), os.urandom(40 << 20)


def few(folder: Path) -> None:
    (folder / "small").write_bytes(SMALL)
    (folder / "large").write_bytes(LARGE)
    (folder / "empty").touch()


def test_whoever_reads_a_file_that_is_not_here_yet_waits_for_it(lab):
    lab.made(few)

    folder = lab.attach()

    assert is_missing(folder / "small")
    assert is_missing(folder / "large")
    assert run("cat", folder / "small") == SMALL
    assert run("cat", folder / "large") == LARGE
    assert not is_missing(folder / "small")
    assert not is_missing(folder / "large")
    assert run("cat", folder / "empty") == b""


def test_all_the_rest_is_fetched_meanwhile_and_then_nobody_waits_for_anything(lab):
    lab.made(few)
    folder = lab.attach()
    assert lab.lazy.driver.status(DATA)["Fetched"] == "0 %"

    lab.complete()

    eventually(lambda: lab.holders() == [])
    assert "Fetched" not in lab.lazy.driver.status(DATA)
    assert (folder / "small").read_bytes() == SMALL
    assert (folder / "large").read_bytes() == LARGE
