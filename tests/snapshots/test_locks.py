"""Locks beside stock restic's: honoured both ways, refreshed, and no obstacle when their owner is gone."""

import json
import os
import socket
import subprocess
from pathlib import Path

import msgspec
import pytest
from tests.snapshots.parts import PASSWORD, FolderStore, restic

from orlop.errors import Busy
from orlop.objects.store import MemoryStore, ObjectInfo
from orlop.snapshots import locks, times
from orlop.snapshots.documents import LockFile
from orlop.snapshots.locks import Lock
from orlop.snapshots.repository import Repository


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository.create(FolderStore(tmp_path), PASSWORD)


def foreign(repository: Repository, *, exclusive: bool, host: str = "elsewhere", pid: int = 1) -> str:
    file = LockFile(times.written(locks.time.time_ns()), exclusive, host, "somebody", pid)
    return repository.put("locks", msgspec.json.encode(file))[0]


@pytest.mark.part("S5")
def test_restic_prune_waits_for_our_lock_and_saving_does_not(tmp_path: Path, repository: Repository) -> None:
    with Lock(repository):
        assert "already locked" in restic(tmp_path, "prune", check=False)
        restic(tmp_path, "backup", __file__)

    restic(tmp_path, "prune")


def test_an_exclusive_lock_of_somebody_else_is_respected(repository: Repository) -> None:
    foreign(repository, exclusive=True)

    with pytest.raises(Busy, match="exclusively by process 1 of 'somebody' on 'elsewhere'"), Lock(repository):
        pass

    assert len(repository.listed("locks")) == 1


def test_shared_locks_stand_side_by_side_and_are_gone_afterwards(repository: Repository) -> None:
    with Lock(repository) as first, Lock(repository) as second:
        assert [held.session for held in first.others()] == [second.session]

    assert repository.listed("locks") == []


def test_two_prunes_do_not(repository: Repository) -> None:
    with Lock(repository, prune=True), Lock(repository):
        with pytest.raises(Busy, match="for pruning"), Lock(repository, prune=True):
            pass


def test_the_lock_of_a_process_that_died_here_is_taken_away(repository: Repository) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    foreign(repository, exclusive=True, host=socket.gethostname(), pid=dead.pid)

    with Lock(repository):
        assert len(repository.listed("locks")) == 1


def test_the_lock_of_a_process_in_another_namespace_is_not_judged_by_its_number(repository: Repository) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    file = LockFile(
        times.written(locks.time.time_ns()), True, socket.gethostname(), pid=dead.pid, orlop_processes="another boot"
    )
    repository.put("locks", msgspec.json.encode(file))

    with pytest.raises(Busy), Lock(repository):
        pass


def test_an_abandoned_lock_is_told_by_the_clock_of_the_store_alone(tmp_path: Path, repository: Repository) -> None:
    name = foreign(repository, exclusive=True)
    past = os.stat(tmp_path / "locks" / name).st_mtime - locks.STALE - 1
    os.utime(tmp_path / "locks" / name, (past, past))

    with Lock(repository):
        pass


def test_a_wrong_clock_of_a_host_makes_nobody_stale() -> None:
    repository = Repository.create(MemoryStore(), PASSWORD)
    yesterday = times.written(locks.time.time_ns() - 86_400 * 10**9)
    repository.put("locks", msgspec.json.encode(LockFile(yesterday, True, "elsewhere")))

    with pytest.raises(Busy), Lock(repository):
        pass


def test_a_refresh_writes_the_new_name_before_the_old_one_goes(repository: Repository) -> None:
    with Lock(repository) as lock:
        (before,) = repository.listed("locks")
        lock.refresh()
        (after,) = repository.listed("locks")
        lock.check()

    assert before.key != after.key


def test_who_lost_his_lock_learns_it_before_he_commits(repository: Repository) -> None:
    with Lock(repository) as lock:
        for info in repository.listed("locks"):
            repository.store.delete(info.key)

        with pytest.raises(Busy, match="nothing was committed"):
            lock.check()


def test_a_lock_that_was_not_refreshed_in_time_is_lost(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    with Lock(repository) as lock:
        later = locks._uptime() + locks.STALE + 1
        monkeypatch.setattr(locks, "_uptime", lambda: later)

        with pytest.raises(Busy, match="half an hour"):
            lock.check()


def test_a_lock_that_is_refreshed_during_a_listing_is_not_missed(repository: Repository) -> None:
    other = Lock(repository)

    class Refreshing(FolderStore):
        refreshed = False

        def walk(self, prefix: str = ""):  # type: ignore[no-untyped-def]
            listed: list[ObjectInfo] = list(super().walk(prefix))
            if prefix == "locks/" and not self.refreshed:
                self.refreshed = True
                other.refresh()
            return iter(listed)

    watching = Repository.open(Refreshing(repository.store.root), PASSWORD)
    with Lock(watching) as lock, other:
        watching.store.refreshed = False
        assert [held.session for held in lock.others()] == [other.session]


def test_restic_lists_our_lock_as_one_of_its_own(tmp_path: Path, repository: Repository) -> None:
    with Lock(repository):
        (name,) = (info.key.removeprefix("locks/") for info in repository.listed("locks"))

        shown = json.loads(restic(tmp_path, "--no-lock", "cat", "lock", name))

    assert (shown["exclusive"], shown["pid"], shown["hostname"]) == (False, os.getpid(), socket.gethostname())
