"""Nobody waits for ever: what takes too long is left behind, and is tidied up when it ends after all."""

import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.errors import Busy
from orlop.kernel import waiting
from orlop.kernel.mounter import KernelMounter
from orlop.kernel.mountinfo import ours
from orlop.mount import Mount


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """A place with something mounted."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    target, mounter = tmp_path / "target", KernelMounter()
    mounter.mount([Mount("tmpfs", "tmpfs")], target)
    yield target
    mounter.unmount(target)


def is_mounted(target: Path) -> bool:
    return str(target) in {entry.target for entry in ours()}


def test_what_is_opened_in_time_is_handed_over() -> None:
    wanted = os.open("/dev/null", os.O_RDONLY)

    found = waiting.Opening(lambda: wanted).within(5)

    assert found == wanted
    os.close(found)


def test_a_refusal_is_handed_over_too() -> None:
    with pytest.raises(FileNotFoundError):
        waiting.Opening(lambda: os.open("/nowhere", os.O_RDONLY)).within(5)


def test_what_is_opened_too_late_is_closed() -> None:
    come, (reader, writer) = threading.Event(), os.pipe()
    opening = waiting.Opening(lambda: writer if come.wait(20) else -1)

    with pytest.raises(TimeoutError, match="no answer within 0 s"):
        opening.within(0.05)
    come.set()
    opening.join(5)

    # The end of a pipe is read as soon as nobody can write to it.
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_a_mount_is_taken_away_and_one_in_use_is_not(target: Path) -> None:
    with (target / "file").open("w"), pytest.raises(OSError, match="busy") as refused:
        waiting.unmount(target, 0, lambda: is_mounted(target))
    stayed = is_mounted(target)

    waiting.unmount(target, 0, lambda: is_mounted(target))

    assert refused.value.errno == errno.EBUSY
    assert stayed
    assert not is_mounted(target)


def test_unmounting_that_takes_too_long_is_said_and_goes_on(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # In place of a server: a process that takes three seconds, however long this one is held up meanwhile.
    monkeypatch.setattr(waiting, "_UNMOUNT", f"import time; time.sleep(3)\n{waiting._UNMOUNT}")

    with pytest.raises(Busy, match="still mounted; the kernel goes on trying"):
        waiting.unmount(target, 0, lambda: is_mounted(target), patience=0)

    until = time.monotonic() + 20
    while is_mounted(target):
        assert time.monotonic() < until
        time.sleep(0.01)
