"""What tests in a guest start from: real servers of network filesystems, an engine and orlop beside them.

These tests need a kernel with NFS and CIFS, so they run in the guest only (``make test-guest``); there
``$ORLOP_GUEST`` is set. Elsewhere they are collected, counted as deselected, and not run.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.guest.plugin import Plugin
from tests.guest.servers import Servers
from tests.journeys.lab import Lab

from orlop.testing import images
from orlop.testing.machine import Machine

HERE = Path(__file__).parent


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("ORLOP_GUEST"):
        return
    ours = [item for item in items if item.path.is_relative_to(HERE)]
    config.hook.pytest_deselected(items=ours)
    items[:] = [item for item in items if item not in ours]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not os.environ.get("ORLOP_GUEST"):
        terminalreporter.write_line("tests/guest runs in a guest with a full kernel: make test-guest")


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """In the guest, so that it can be switched off with all that a failed test left."""
    with Machine(tmp_path_factory.mktemp("machines") / "nas", "nas") as machine:
        yield machine


@pytest.fixture(scope="session")
def _running(machine: Machine) -> Iterator[Servers]:
    servers = Servers(machine)
    servers.start()
    yield servers
    servers.stop()


@pytest.fixture
def servers(_running: Servers) -> Iterator[Servers]:
    """The servers, with empty folders; both run, whatever a test did to them."""
    yield _running
    _running.speak()
    _running.start()
    _running.offer()
    _running.empty()


@pytest.fixture(scope="session")
def served(machine: Machine, _running: Servers) -> Lab:
    """orlop's daemon on the servers' machine, without an engine."""
    lab = Lab(machine)
    lab.serve()
    return lab


@pytest.fixture
def plugin(served: Lab) -> Iterator[Plugin]:
    """The daemon, as an engine speaks to it; a test gives back what it mounts, its volumes go by themselves."""
    plugin = Plugin(served)
    yield plugin
    plugin.clean()


@pytest.fixture(scope="session")
def computer(served: Lab) -> Iterator[Lab]:
    served.engine.start(timeout=200)
    served.engine.load(images.build("busybox"))
    yield served
    served.engine.stop()


@pytest.fixture
def lab(computer: Lab) -> Iterator[Lab]:
    """Docker Engine and orlop on the servers' machine; what a test made in them goes with it."""
    yield computer
    computer.clean()
