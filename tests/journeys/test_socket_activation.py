"""systemd's part and ours: the socket is there from boot on, the daemon from the first call on."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orlop.testing.engine import Engine
from orlop.testing.machine import Machine
from orlop.testing.process import Process

SOCKET = "/run/docker/plugins/orlop.sock"
SYSTEMD = ["systemd-socket-activate", f"--listen={SOCKET}"]
OURS = [sys.executable, str(Path(__file__).with_name("activator.py")), SOCKET]


@pytest.fixture
def activate(machine: Machine) -> Iterator[object]:
    started = []

    def start(activator: list[str]) -> Process:
        (machine.root / SOCKET.lstrip("/")).unlink(missing_ok=True)
        argv = [*activator, sys.executable, "-m", "orlop", "serve", "--root", str(machine.folder / "store")]
        started.append(machine.spawn(argv, log=machine.folder / "serve.log"))
        until = time.monotonic() + 10
        while not (machine.root / SOCKET.lstrip("/")).exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        return started[-1]

    yield start
    for process in started:
        process.kill9()
        for pid in daemons(machine):
            os.kill(pid, signal.SIGKILL)


def daemons(machine: Machine) -> list[int]:
    """The host's numbers of the processes that serve this machine's volumes, not of those that start them."""
    found = []
    root = str(machine.folder / "store").encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[1:4] == [b"-m", b"orlop", b"serve"] and root in words:
            found.append(int(path.parent.name))
    return found


@pytest.mark.part("P1", "P11")
@pytest.mark.parametrize("activator", [SYSTEMD, OURS], ids=["systemd", "ours"])
def test_the_first_call_starts_the_daemon_and_is_answered(
    engine: Engine, machine: Machine, activate, activator: list[str], record_property
) -> None:
    if shutil.which(activator[0]) is None:
        pytest.skip(f"no {activator[0]} here")
    activate(activator)
    assert daemons(machine) == []

    began = time.monotonic()
    created = engine.docker("volume", "create", "-d", "orlop", f"first-{activator[0].rpartition('/')[2]}")
    record_property("seconds", time.monotonic() - began)

    assert created.stdout.startswith("first-")
    assert len(daemons(machine)) == 1


@pytest.mark.part("P11")
def test_calls_that_come_while_the_daemon_is_dead_are_answered_by_the_next_one(
    engine: Engine, machine: Machine, activate
) -> None:
    activate(OURS)
    engine.docker("volume", "create", "-d", "orlop", "before")
    first = daemons(machine)

    with ThreadPoolExecutor(4) as pool:
        os.kill(first[0], signal.SIGKILL)
        names = [f"meanwhile-{number}" for number in range(4)]
        created = [pool.submit(engine.docker, "volume", "create", "-d", "orlop", name) for name in names]
        assert [future.result().stdout.strip() for future in created] == names

    listed = engine.docker("volume", "ls", "-q", "-f", "driver=orlop").stdout.split()
    assert {"before", *names} <= set(listed)
    assert daemons(machine) != first
