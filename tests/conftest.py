"""Parts that many tests need: an engine's service on paper, and the rule that nothing may be left behind."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orlop.errors import Unavailable
from orlop.kernel.locks import Locks
from orlop.kernel.mountinfo import ours
from orlop.state import State
from orlop.testing import engines
from orlop.testing.paper import PaperMounter
from orlop.volumes.driver import VolumeDriver
from orlop.volumes.host import Host
from orlop.volumes.local import LocalDriver
from orlop.volumes.memory import TmpfsDriver
from orlop.volumes.service import VolumeService
from orlop.volumes.vault import Vault


def pytest_configure(config: pytest.Config) -> None:
    from tests.plugin_features import Recorder

    config.pluginmanager.register(Recorder(), "features")
    # Whoever ends a run that is not in the foreground: what was begun is cleaned up.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A shell lets what it starts in the background ignore this one, and so would all that the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def mounter() -> PaperMounter:
    return PaperMounter()


@pytest.fixture
def reopened(tmp_path: Path, clock: Clock, mounter: PaperMounter) -> Iterator[Callable[..., VolumeService]]:
    """The service on ``tmp_path``, as a new process opens it; the test may add a step, a boot id, a driver.

    It has a place for its mounts, so all volumes are mounted; ``mounts=None`` lets those be used in place that can.
    """

    opened: list[State] = []

    def open_service(
        step: Callable[[str], object] = str,
        boot: str = "boot-1",
        mounts: Path | None = tmp_path / "mounts",
        **more: VolumeDriver,
    ) -> VolumeService:
        drivers = {"local": LocalDriver(tmp_path / "volumes"), "tmpfs": TmpfsDriver(), **more}
        state, locks = State(tmp_path / "state.db"), Locks(tmp_path / "locks", patience=5)
        opened.append(state)
        vault = Vault(tmp_path / "vault", tmp_path / "vault.key", step)
        return VolumeService(tmp_path, state, mounter, drivers, locks, Host(boot, clock, step), vault, mounts)

    yield open_service
    for state in opened:
        state.close()


@pytest.fixture
def service(reopened: Callable[..., VolumeService]) -> VolumeService:
    return reopened()


@pytest.fixture(scope="session")
def newer_programs() -> Path:
    """The programs of Docker Engine 28 or later; where they cannot be had, tests that need them are skipped."""
    try:
        return engines.newer()
    except Unavailable as problem:
        pytest.skip(f"no newer engine: {problem}")


@pytest.fixture(autouse=True)
def _nothing_left_mounted(tmp_path_factory: pytest.TempPathFactory) -> object:
    """A test that leaves a mount behind fails, whatever else it says."""
    folder = f"{tmp_path_factory.getbasetemp()}/"
    before = {entry.target for entry in ours()}
    yield
    left = sorted(entry.target for entry in ours() if entry.target.startswith(folder) and entry.target not in before)
    assert not left, f"left mounted: {left}"
