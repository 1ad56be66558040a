"""A machine with a Docker Engine and orlop, in which command lines run as a person types them."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from orlop.testing.engine import Engine
from orlop.testing.machine import Machine
from orlop.testing.process import Process
from orlop.testing.waiting import eventually

# The documents' containers ping docker.com: one name, and the address of the machine on Docker's bridge.
_NAMES = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 53))
while True:
    asked, who = server.recvfrom(512)
    end = asked.index(b"\\0", 12) + 5
    known = asked[12:end - 4].lower() == b"\\6docker\\3com\\0" and asked[end - 3] == 1
    answer = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\1\\0\\4" + socket.inet_aton("172.17.0.1") if known else b""
    server.sendto(asked[:2] + b"\\x81\\x80\\0\\1\\0" + bytes([known]) + b"\\0\\0\\0\\0" + asked[12:end] + answer, who)
"""
_PYTHON = [sys.executable, "-u"]

every_engine = pytest.mark.parametrize("lab", ["computer", "newer_computer"], indirect=True, ids=["packaged", "newer"])
"""Plays a story of the fixture ``lab`` on the host's engine and on a newer one."""


class Lab:
    """One machine with a Docker Engine and orlop; command lines run in it as a person types them."""

    def __init__(self, machine: Machine, programs: Path | None = None) -> None:
        self.machine = machine
        self.folder = machine.folder
        self.engine = Engine(machine, "--dns=172.17.0.1", programs=programs)
        self.root = machine.folder / "orlop"
        self.log = machine.folder / "orlop.log"
        self.home = machine.folder / "home"
        self.home.mkdir()
        self._serving: Process | None = None

    def serve(self, **env: str) -> None:
        """Start orlop and wait until it listens."""
        self._serving = self.machine.spawn(
            [*_PYTHON, "-m", "orlop", "serve", "--root", str(self.root)], log=self.log, env=env
        )
        eventually(lambda: self._listens() or not self._serving.running)
        assert self._serving.running, self.log.read_text()

    def kill_orlop(self) -> None:
        """kill -9, as a crash would; the dead socket stays."""
        self._serving.kill9()

    def crash_orlop(self) -> None:
        """As by a bug in its memory: where the kernel keeps that of a crashed process, it may keep it."""
        os.kill(self._serving.pid, signal.SIGSEGV)
        self._serving.wait()

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.inside("/run/docker/plugins/orlop.sock"))) == 0

    def answer_names(self) -> None:
        self.machine.spawn([*_PYTHON, "-c", _NAMES], log=self.folder / "names.log")

    def sh(
        self,
        command: str,
        *,
        driver: str = "local",
        cwd: Path | None = None,
        tty: bool = False,
        typed: str = "",
        check: bool = True,
        timeout: float = 90,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command line in the machine, from an empty folder; ``typed`` is what the person types.

        The volumes that it makes are kept by ``driver``; ``local`` leaves the command line as it is.
        """
        argv = ["bash", "-c", _with_driver(command, driver)]
        return self.machine.run(
            argv, check=check, cwd=cwd or self.home, tty=tty, input=typed, env=self.engine.environment, timeout=timeout
        )

    def start(self, command: str, driver: str = "local") -> Process:
        """Run a command line, and do not wait for its end."""
        argv = ["bash", "-c", _with_driver(command, driver)]
        return self.machine.spawn(argv, cwd=self.home, env=self.engine.environment, log=self.folder / "started.log")

    def out(self, command: str, **how: object) -> str:
        """What it printed, without the last line's end."""
        return self.sh(command, **how).stdout.rstrip("\n")

    def refused(self, command: str, **how: object) -> str:
        """The error of a command line that must not succeed."""
        done = self.sh(command, check=False, **how)
        assert done.returncode != 0, done.stdout
        return done.stderr + done.stdout

    def mounts(self, container: str) -> dict[str, dict[str, object]]:
        """The section "Mounts" of ``docker inspect``, by destination."""
        found = json.loads(self.out(f"docker inspect {container}"))[0]["Mounts"]
        return {mount["Destination"]: mount for mount in found}

    def volume(self, name: str) -> dict[str, object]:
        """``docker volume inspect``."""
        return json.loads(self.out(f"docker volume inspect {name}"))[0]

    def volumes(self) -> set[str]:
        """The names in ``docker volume ls``."""
        return set(self.out("docker volume ls -q").split())

    def inside(self, path: str) -> Path:
        """A path of the machine, as the host reaches it."""
        return self.machine.root / path.lstrip("/")

    def remove_service(self, name: str) -> None:
        """``docker service rm``, and wait until its tasks have ended."""
        self.sh(f"docker service rm {name}")
        # As process 1, many programs have no answer to a polite signal, and the swarm waits ten seconds for one.
        self.sh("docker ps -q | xargs -r docker kill", check=False)
        eventually(lambda: not self.out("docker ps -aq"))

    def clean(self) -> None:
        """No service, no container, no volume, nothing in the home folder."""
        self.sh("docker service ls -q 2>/dev/null | xargs -r docker service rm")
        self.sh("docker ps -aq | xargs -r docker rm -fv; docker volume ls -q | xargs -r docker volume rm -f")
        self.sh('rm -rf "$PWD"/* /data /srv/*')


def _with_driver(command: str, driver: str) -> str:
    """A document's command line, with the volumes that it makes kept by ``driver``; as it stands for Docker's own."""
    if driver == "local":
        return command
    command = re.sub(r"docker volume create\b", f"docker volume create -d {driver}", command)
    command = re.sub(r"(--mount\s+(?:source|src)=\S+)", rf"\1,volume-driver={driver}", command)
    return re.sub(r"(docker (?:run|create)) (?=[^;]*-v )", rf"\1 --volume-driver {driver} ", command)
