"""Cloudstor's page with a real engine: volumes are shares of an account, here one of the stand-in for Azure Files.

What containers see of a share needs a kernel with SMB, which not every host has: that is for the tests in a guest.
"""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.azure_account import ACCOUNT, KEY

from orlop.testing.engine import Engine
from orlop.testing.machine import Machine
from orlop.testing.process import Process

ENDPOINT = "http://127.0.0.1:10000"
SETTINGS = {
    "CLOUD_PLATFORM": "AZURE",
    "AZURE_STORAGE_ACCOUNT": ACCOUNT,
    "AZURE_STORAGE_ACCOUNT_KEY": KEY,
    "AZURE_STORAGE_ENDPOINT": ENDPOINT,
}


def start_azure(machine: Machine) -> tuple[Process, Path]:
    """The stand-in on the machine, and the folder of its shares."""
    folder = machine.folder / "azure"
    argv = [sys.executable, "-m", "orlop.testing.azure", str(folder)]
    log = machine.folder / "azure.log"
    log.write_text("")
    process = machine.spawn(argv, log=log, env=SETTINGS)
    until = time.monotonic() + 20
    while "ready" not in log.read_text():
        assert process.running, log.read_text()
        assert time.monotonic() < until
        time.sleep(0.05)
    return process, folder / "shares"


@pytest.fixture(scope="module")
def shares(machine: Machine) -> Iterator[Path]:
    process, shares = start_azure(machine)
    yield shares
    process.terminate()


@pytest.fixture
def docker(engine: Engine, serve: Callable[..., Process], shares: Path) -> Iterator[Callable[..., str]]:
    """Docker's client on a host whose orlop is set up for the account; volumes go with the test."""
    serve("--debug", **SETTINGS)
    yield lambda *words: engine.docker(*words).stdout.strip()
    for volume in engine.docker("volume", "ls", "-q").stdout.split():
        engine.docker("volume", "rm", volume)


def node(machine: Machine, name: str, *words: str) -> str:
    """A command of orlop on another node with the account: another host, as far as orlop can tell."""
    env = {**SETTINGS, "ORLOP_ROOT": str(machine.folder / name), "ORLOP_NO_ENGINE": "1"}
    return machine.run([sys.executable, "-m", "orlop", *words], env=env).stdout.strip()


@pytest.mark.part("P7", "D4", "E1")
def test_a_volume_is_a_share_named_by_the_md5_of_its_name_until_it_is_removed(
    docker: Callable[..., str], shares: Path
) -> None:
    docker("volume", "create", "-d", "orlop", "sharedvol1")

    (shown,) = json.loads(docker("volume", "inspect", "sharedvol1"))
    assert [share.name for share in shares.iterdir()] == [hashlib.md5(b"sharedvol1").hexdigest()]
    assert docker("volume", "ls", "-q") == "sharedvol1"
    assert (shown["Driver"], shown["Status"]["Driver"]) == ("orlop", "azurefile")

    docker("volume", "rm", "sharedvol1")
    assert docker("volume", "ls", "-q") == ""
    assert list(shares.iterdir()) == []


@pytest.mark.part("P7", "D4", "E1")
def test_the_pages_options_and_one_share_for_all_nodes(
    docker: Callable[..., str], shares: Path, machine: Machine
) -> None:
    docker("volume", "create", "-d", "orlop", "-o", "uid=1000", "-o", "share=sharedvol", "sharedvol1")
    (shares / "sharedvol/file").write_text("kept")

    node(machine, "n2", "volume", "create", "-o", "uid=1000", "-o", "share=sharedvol", "sharedvol1")

    assert [share.name for share in shares.iterdir()] == ["sharedvol"]
    assert (shares / "sharedvol/file").read_text() == "kept"
    (shown,) = json.loads(docker("volume", "inspect", "sharedvol1"))
    assert shown["Status"]["Options"] == {"uid": "1000", "share": "sharedvol"}

    node(machine, "n2", "volume", "rm", "sharedvol1")
    assert list(shares.iterdir()) == []


def test_an_unknown_option_and_an_illegal_share_make_nothing(
    docker: Callable[..., str], engine: Engine, shares: Path
) -> None:
    wrong = engine.docker("volume", "create", "-d", "orlop", "-o", "filemod=0640", "x", check=False)
    illegal = engine.docker("volume", "create", "-d", "orlop", "-o", "share=../x", "x", check=False)
    elsewhere = engine.docker("volume", "create", "-d", "orlop", "-o", "backing=relocatable", "x", check=False)

    assert "did you mean 'filemode'?" in wrong.stderr
    assert "'../x'" in illegal.stderr
    assert "'bucket'" in elsewhere.stderr
    assert docker("volume", "ls", "-q") == ""
    assert list(shares.iterdir()) == []


def test_the_key_is_nowhere_but_in_the_daemons_environment(
    docker: Callable[..., str], engine: Engine, machine: Machine, shares: Path
) -> None:
    docker("volume", "create", "-d", "orlop", "-o", "share=sharedvol", "sharedvol1")
    # Nobody speaks SMB on this machine, whether its kernel could or not.
    mounted = engine.docker("run", "--rm", "-v", "sharedvol1:/d", "shell", "true", check=False)
    inspected = docker("volume", "inspect", "sharedvol1")

    assert mounted.returncode != 0
    assert "'//127.0.0.1/sharedvol' (cifs)" in mounted.stderr
    store = machine.root / str(machine.folder / "store").lstrip("/")
    files = [path for path in store.rglob("*") if path.is_file()]
    arguments = b"".join(path.read_bytes() for path in (machine.root / "proc").glob("[0-9]*/cmdline"))
    log = (machine.folder / "serve.log").read_text()
    assert len(files) >= 2
    assert "sharedvol" in log
    assert [path.name for path in files if KEY.encode() in path.read_bytes()] == []
    assert KEY.encode() not in arguments
    assert KEY not in log + mounted.stderr + inspected + engine.log.read_text()


def test_a_service_that_is_down_is_named_and_the_other_volumes_go_on(
    engine: Engine, serve: Callable[..., Process]
) -> None:
    serve(**{**SETTINGS, "AZURE_STORAGE_ENDPOINT": "http://127.0.0.1:1"})

    refused = engine.docker("volume", "create", "-d", "orlop", "sharedvol1", check=False)
    engine.docker("volume", "create", "-d", "orlop", "-o", "driver=local", "here")
    engine.docker("run", "--rm", "-v", "here:/d", "shell", "touch", "/d/x")
    engine.docker("volume", "rm", "here")

    assert f"of account '{ACCOUNT}': no answer from http://127.0.0.1:1" in refused.stderr
    assert engine.docker("volume", "ls", "-q").stdout == ""
