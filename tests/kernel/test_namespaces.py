"""Every mount namespace is found, however it came and whoever left it."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from orlop.kernel import mountinfo, namespaces


@contextmanager
def somebody(*argv: str) -> Iterator[subprocess.Popen[str]]:
    """A process that says "here" when it is where it wanted to go, and stays."""
    script = "echo here; exec sleep 60"
    process = subprocess.Popen([*argv, "sh", "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "here\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(params=["the kernel lists them", "every process is asked"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "every process is asked":
        monkeypatch.setattr(namespaces, "_names", lambda: None)
    return request.param


def shown() -> dict[str, int]:
    """By namespace, the process through which its mounts are seen."""
    return {os.readlink(f"/proc/{pid}/ns/mnt"): pid for pid, _ in mountinfo.namespaces()}


def test_a_namespace_is_seen_as_soon_as_somebody_lives_in_it(way: str) -> None:
    before = shown()

    with somebody("unshare", "--mount") as process:
        after = shown()

        assert after.keys() - before.keys() == {os.readlink(f"/proc/{process.pid}/ns/mnt")}
    assert shown().keys() == before.keys()


def test_it_is_seen_through_whoever_is_left_in_it(way: str) -> None:
    with somebody("unshare", "--mount") as first:
        name = os.readlink(f"/proc/{first.pid}/ns/mnt")
        assert shown()[name] == first.pid

        with somebody("nsenter", f"--target={first.pid}", "--mount") as second:
            first.kill()
            first.wait()

            assert shown()[name] == second.pid


def test_one_that_nobody_lived_in_is_seen_soon_after_somebody_enters(way: str) -> None:
    with somebody("unshare", "--mount") as maker:
        kept = os.open(f"/proc/{maker.pid}/ns/mnt", os.O_RDONLY)
        name = os.readlink(f"/proc/{maker.pid}/ns/mnt")
    try:
        assert name not in shown()

        with somebody("nsenter", f"--mount=/proc/{os.getpid()}/fd/{kept}") as guest:
            until = time.monotonic() + 5
            while name not in (found := shown()) and time.monotonic() < until:
                time.sleep(0.1)

            assert found[name] == guest.pid
    finally:
        os.close(kept)
