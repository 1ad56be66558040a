"""Every mount namespace is found, however it came and whoever left it."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orlop.kernel import mountinfo, namespaces
from orlop.kernel import syscalls as sc


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
        monkeypatch.setattr(namespaces, "_numbers", lambda: None)
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


def test_what_is_mounted_in_a_namespace_is_seen_at_once(way: str, tmp_path: Path) -> None:
    place = str(tmp_path)
    with somebody("unshare", "--mount") as process:
        seen = [shows(process.pid, place)]
        for command in (["mount", "-t", "tmpfs", "none", place], ["umount", place]):
            subprocess.run(["nsenter", f"--target={process.pid}", "--mount", *command], check=True)
            seen.append(shows(process.pid, place))

    assert seen == [False, True, False]


def shows(pid: int, place: str) -> bool:
    """Whether the namespace of ``pid`` has something at ``place``; asked twice, as it is remembered."""
    answers = {f" {place} " in dict(mountinfo.namespaces())[pid] for _ in range(2)}
    assert len(answers) == 1
    return answers.pop()


@pytest.mark.skipif(namespaces._numbers() is None, reason="before Linux 6.11 the kernel does not list mounts")
def test_a_table_is_read_again_only_if_other_mounts_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    monkeypatch.setattr(mountinfo, "_table", lambda pid: read.append(pid) or Path(f"/proc/{pid}/mountinfo").read_text())
    with somebody("unshare", "--mount") as process:
        for _ in range(3):
            dict(mountinfo.namespaces())

        assert read.count(process.pid) == 1
        assert mountinfo._remembered
    dict(mountinfo.namespaces())

    assert process.pid not in {known.pid for known in mountinfo._remembered.values()}


@pytest.mark.skipif(namespaces._numbers() is None, reason="before Linux 6.11 the kernel does not list mounts")
def test_ids_that_do_not_fit_into_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    (ours,) = [found.number for found in namespaces.residents() if found.name == namespaces.namespace("self")]
    at_once = sc.mount_ids(ours)

    for size in (8, 16, len(at_once)):
        monkeypatch.setattr(sc, "_MANY_IDS", size)
        assert sc.mount_ids(ours) == at_once
    assert len(at_once) >= 8 * len(mountinfo.ours())
