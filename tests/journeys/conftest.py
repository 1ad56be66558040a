"""What journeys start from: a machine, an engine on it and orlop's daemon, singly or as a `Lab`."""

import os
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from tests.journeys.fleet import Fleet, fleet_of_three
from tests.journeys.lab import Lab

from orlop.testing import images
from orlop.testing.engine import Engine
from orlop.testing.machine import Machine
from orlop.testing.process import Process

APPLETS = ("sh", "cat", "echo", "grep", "ls", "mkdir", "mount", "rm", "sleep", "stat", "sync", "touch", "true")


@pytest.fixture(scope="session")
def shell_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root filesystem with a shell and little else, as a tar for ``import``."""
    image = tmp_path_factory.mktemp("image") / "shell.tar"
    with tarfile.open(image, "w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return image


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Machine(tmp_path_factory.mktemp("host"), "host") as machine:
        yield machine


@pytest.fixture(scope="module")
def engine(machine: Machine, shell_image: Path) -> Iterator[Engine]:
    """A dockerd with the image ``shell``; no plugin runs yet."""
    engine = Engine(machine)
    engine.start()
    engine.docker("import", str(shell_image), "shell")
    yield engine
    engine.stop()


@pytest.fixture
def serve(machine: Machine) -> Iterator[Callable[..., Process]]:
    """Starts ``orlop serve`` with more options, and waits until the socket is there; all end with the test."""
    started = []

    def start(*options: str, socket: str = "run/docker/plugins/orlop.sock", **env: str) -> Process:
        argv = [sys.executable, "-m", "orlop", "serve", "--root", str(machine.folder / "store"), *options]
        path = machine.root / socket
        path.unlink(missing_ok=True)
        started.append(machine.spawn(argv, log=machine.folder / "serve.log", env={"ORLOP_HOLD_GRACE": "0", **env}))
        until = time.monotonic() + 20
        while not path.exists():
            assert started[-1].running, (machine.folder / "serve.log").read_text()
            assert time.monotonic() < until
            time.sleep(0.02)
        return started[-1]

    yield start
    for process in started:
        process.terminate()


@pytest.fixture(scope="session")
def computer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The machine of all stories; nobody may stop its engine."""
    yield from _lab(tmp_path_factory, "docs", images.names())


@pytest.fixture(scope="session")
def newer_computer(tmp_path_factory: pytest.TempPathFactory, newer_programs: Path) -> Iterator[Lab]:
    """Another one, with a newer engine."""
    yield from _lab(tmp_path_factory, "newer", ["busybox", "ubuntu", "nginx", "httpd"], newer_programs)


def _lab(
    factory: pytest.TempPathFactory, name: str, loaded: Sequence[str], programs: Path | None = None
) -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")
    with Machine(factory.mktemp("stories") / name, name) as machine:
        lab = Lab(machine, programs)
        lab.serve()
        lab.engine.start()
        lab.answer_names()
        lab.engine.load(*(images.build(image) for image in loaded))
        yield lab


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The machine, without containers and volumes of earlier tests; `every_engine` plays a story on both."""
    lab = request.getfixturevalue(getattr(request, "param", "computer"))
    yield lab
    lab.clean()


@pytest.fixture
def newer(newer_computer: Lab) -> Iterator[Lab]:
    """The machine with the newer engine, without containers and volumes of earlier tests."""
    yield newer_computer
    newer_computer.clean()


@pytest.fixture(scope="module")
def swarm(computer: Lab) -> Iterator[Lab]:
    """The machine as a swarm of one node."""
    # An engine tells the swarm about the volume plugins that it has talked to, and about no others.
    computer.sh("docker volume ls")
    computer.sh("docker swarm init --advertise-addr 127.0.0.1")
    yield computer
    computer.sh("docker swarm leave --force")


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Three machines that are a swarm, and a server."""
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")
    with fleet_of_three(tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


@pytest.fixture
def fleet(machines: Fleet) -> Iterator[Fleet]:
    """The swarm of three, without services and volumes of earlier tests."""
    yield machines
    machines.clean()


@pytest.fixture(params=["local", "orlop"])
def driver(request: pytest.FixtureRequest) -> str:
    """Where a document leaves open which driver keeps a volume: Docker's own, and orlop."""
    return request.param
