"""kill -9 of the daemon at any moment, under load: what was acknowledged is true, and nothing stale is left.

A short seeded part runs always; `make campaign` kills five hundred times.
"""

import contextlib
import http.client
import json
import random
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.testing.machine import Machine
from orlop.testing.process import Process

OPTIONS = [{}, {"mode": "0700"}, {"driver": "tmpfs"}, {"size": "4m"}]
"""By the last letter of the name: who was not told that it exists asks for the same again."""


class Plugin(http.client.HTTPConnection):
    def __init__(self, path: Path):
        super().__init__("plugin", timeout=30)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        try:
            self.sock.connect(str(self.path))
        except OSError:
            self.sock.close()
            raise

    def call(self, verb: str, **request: object) -> dict[str, object]:
        self.request("POST", f"/VolumeDriver.{verb}", json.dumps(request))
        response = self.getresponse()
        return {**json.loads(response.read()), "status": response.status}


class Daemon:
    """orlop in a machine, to be killed and started again."""

    def __init__(self, machine: Machine):
        self.machine = machine
        self.root, self.socket = machine.folder / "root", machine.folder / "orlop.sock"
        self.process: Process | None = None

    def start(self) -> None:
        argv = [sys.executable, "-m", "orlop", "serve", "--root", str(self.root), "--socket", str(self.socket)]
        self.process = self.machine.spawn([*argv, "--hold-grace", "0"], log=self.machine.folder / "serve.log")
        end = time.monotonic() + 20
        while True:
            try:
                with contextlib.closing(Plugin(self.socket)) as plugin:
                    return plugin.connect()
            except OSError:
                assert time.monotonic() < end, (self.machine.folder / "serve.log").read_text()
                time.sleep(0.02)

    def kill9(self) -> None:
        assert self.process is not None
        self.process.kill9()


class Client(threading.Thread):
    """One user of a few volumes of its own, who writes down what was acknowledged."""

    def __init__(self, daemon: Daemon, number: int, stop: threading.Event):
        super().__init__(daemon=True)
        self.daemon_, self.number, self.stop, self.random = daemon, number, stop, random.Random(number)
        self.there: dict[str, bool | None] = {}
        """By name: whether the daemon said that it is there; None while nobody knows."""
        self.done = 0
        self.problems: list[str] = []

    def run(self) -> None:
        with contextlib.closing(Plugin(self.daemon_.socket)) as plugin:
            while not self.stop.is_set():
                try:
                    self._one_thing(plugin)
                except (OSError, http.client.HTTPException):
                    plugin.close()
                    time.sleep(0.01)

    def _one_thing(self, plugin: Plugin) -> None:
        name = f"c{self.number}-{self.random.randrange(4)}"
        known = self.there.get(name, False)
        if known is None:
            self.there[name] = plugin.call("Get", Name=name)["status"] == 200
        elif not known:
            self.there[name] = None
            self._expect(plugin.call("Create", Name=name, Opts=OPTIONS[int(name[-1])]), name, "Create")
            self.there[name] = True
        elif self.random.random() < 0.25:
            self.there[name] = None
            self._expect(plugin.call("Remove", Name=name), name, "Remove")
            self.there[name] = False
        else:
            self._expect(plugin.call("Mount", Name=name, ID="1" * 64), name, "Mount")
            self._expect(plugin.call("Unmount", Name=name, ID="1" * 64), name, "Unmount")
        self.done += 1

    def _expect(self, reply: dict[str, object], name: str, verb: str) -> None:
        if reply["status"] != 200:
            self.problems.append(f"{verb} {name}: {reply['Err']}")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path / "kills", "kills") as machine:
        yield machine


@pytest.mark.feature("P11")
def test_twenty_kills_under_load_lose_nothing(machine: Machine) -> None:
    _kill_under_load(machine, kills=20, seed=20)


@pytest.mark.campaign
@pytest.mark.timeout(1800)
def test_five_hundred_kills_under_load_lose_nothing(machine: Machine) -> None:
    _kill_under_load(machine, kills=500, seed=500)


def _kill_under_load(machine: Machine, kills: int, seed: int) -> None:
    daemon, stop, moments = Daemon(machine), threading.Event(), random.Random(seed)
    daemon.start()
    clients = [Client(daemon, number, stop) for number in range(3)]
    for client in clients:
        client.start()
    for _ in range(kills):
        time.sleep(moments.uniform(0.02, 0.25))
        daemon.kill9()
        daemon.start()
    stop.set()
    for client in clients:
        client.join(60)
        assert not client.is_alive()

    assert sum(client.done for client in clients) > 2 * kills
    assert [problem for client in clients for problem in client.problems] == []
    _compare(daemon, clients)


def _compare(daemon: Daemon, clients: list[Client]) -> None:
    with contextlib.closing(Plugin(daemon.socket)) as plugin:
        _compare_with(plugin, clients)
    daemon.kill9()
    mounts = daemon.machine.run(["cat", "/proc/self/mountinfo"]).stdout
    assert f"{daemon.root}/mounts" not in mounts
    assert str(daemon.root) not in daemon.machine.run(["losetup", "-a"]).stdout


def _compare_with(plugin: Plugin, clients: list[Client]) -> None:
    listed = {str(volume["Name"]) for volume in plugin.call("List")["Volumes"]}
    for client in clients:
        for name, there in client.there.items():
            if there is not None:
                assert (name in listed) is there, name
    for name in listed:
        plugin.call("Unmount", Name=name, ID="1" * 64)
        assert plugin.call("Remove", Name=name)["status"] == 200
