"""One lease: who gets it when, what is refused, and what is found out after an answer that was lost."""

import json
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from orlop.errors import Busy, Corrupt, Invalid, Unavailable
from orlop.objects.files import FileStore
from orlop.objects.store import MemoryStore, ObjectInfo
from orlop.volumes.bucket import lease
from orlop.volumes.bucket.lease import Clock, Fenced, Owner

A, B = Owner("n1", "boot-1"), Owner("n2", "boot-2")


class Time:
    """A clock that moves when it is slept on."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.clock = Clock(lambda: self.now, self.sleep, lambda: 1_800_000_000 + self.now)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def at() -> Time:
    return Time()


def test_a_lease_that_nobody_has_is_taken_at_once(store: MemoryStore, at: Time) -> None:
    held = lease.acquire(store, "data", A, at.clock)

    assert (held.epoch, held.since, held.lost_at) == (1, 1000.0, 1027.0)
    assert held.held(1026.9)
    assert not held.held(1027.0)
    assert json.loads(b"".join(store.read("leases/data"))) == {
        "epoch": 1,
        "owner": {"host": "n1", "boot": "boot-1", "session": A.session},
        "ttl": 30.0,
        "renewed": 1,
        "until": 1_800_001_030,
    }


def test_sessions_are_never_the_same() -> None:
    assert Owner("n1", "boot-1") != Owner("n1", "boot-1")


def test_a_lease_that_another_has_is_busy_and_says_where(store: MemoryStore, at: Time) -> None:
    lease.acquire(store, "data", A, at.clock)

    with pytest.raises(Busy, match="'data' is in use on host 'n1'; stop it there"):
        lease.acquire(store, "data", B, at.clock, patience=20)

    assert at.now < 1025


def test_a_silent_holder_is_replaced_after_its_ttl_and_a_margin(store: MemoryStore, at: Time) -> None:
    lease.acquire(store, "data", A, at.clock)
    at.sleep(500)

    held = lease.acquire(store, "data", B, at.clock, patience=100)

    # Counted from the first look: what happened before, nobody has seen.
    assert 1533 <= held.since < 1536
    assert (held.epoch, held.owner) == (2, B)


def test_a_contender_that_begins_anew_watches_anew(store: MemoryStore, at: Time) -> None:
    lease.acquire(store, "data", A, at.clock)

    for _ in range(5):
        with pytest.raises(Busy):
            lease.acquire(store, "data", B, at.clock, patience=25)

    assert lease.look(store, "data").owner == A


def test_the_holders_ttl_counts_and_not_the_contenders(store: MemoryStore, at: Time) -> None:
    lease.acquire(store, "data", A, at.clock, ttl=100)

    held = lease.acquire(store, "data", B, at.clock, ttl=10, patience=200)

    assert 1110 <= held.since < 1112


def test_a_holder_that_renews_is_not_replaced(store: MemoryStore, at: Time) -> None:
    held = lease.acquire(store, "data", A, at.clock)

    def sleep_and_renew(seconds: float) -> None:
        nonlocal held
        at.sleep(seconds)
        if at.now >= held.renew_at:
            held = lease.renew(store, held, at.clock)

    with pytest.raises(Busy):
        lease.acquire(store, "data", B, replace(at.clock, sleep=sleep_and_renew), patience=300)

    assert held.epoch == 1
    assert held.held(at.now)
    assert lease.look(store, "data") == held.record


def test_whoever_comes_back_too_late_is_fenced(store: MemoryStore, at: Time) -> None:
    late = lease.acquire(store, "data", A, at.clock)
    lease.acquire(store, "data", B, at.clock, patience=100)

    with pytest.raises(Fenced, match="'data' is not ours any more: host 'n2' has it now"):
        lease.renew(store, late, at.clock)
    lease.release(store, late, at.clock)

    assert lease.look(store, "data").owner == B


def test_a_released_lease_is_taken_at_once_and_the_epoch_grows(store: MemoryStore, at: Time) -> None:
    lease.release(store, lease.acquire(store, "data", A, at.clock), at.clock)

    assert lease.look(store, "data").owner is None
    assert lease.acquire(store, "data", B, at.clock).epoch == 2
    assert at.now == 1000


def test_who_kept_its_session_goes_on_in_its_epoch(store: MemoryStore, at: Time) -> None:
    lease.acquire(store, "data", A, at.clock)
    at.sleep(100)

    again = lease.acquire(store, "data", A, at.clock)

    assert (again.epoch, again.since) == (1, 1100)


def test_a_lease_that_was_deleted_begins_above_the_head(store: MemoryStore, at: Time) -> None:
    lease.acquire(store, "data", A, at.clock)
    store.delete("leases/data")

    assert lease.acquire(store, "data", B, at.clock, above=7).epoch == 8


class _Lost(MemoryStore):
    """Answers to writes are lost, as often as ``lose`` says."""

    lose = 0

    def write(self, key: str, data: Iterable[bytes], *, only_if: str | None = None) -> ObjectInfo:
        info = super().write(key, data, only_if=only_if)
        if self.lose:
            self.lose -= 1
            raise Unavailable("no answer")
        return info


def test_lost_answers_are_found_out_and_never_lengthen_a_lease(at: Time) -> None:
    store = _Lost()
    store.lose = 1
    with pytest.raises(Unavailable):
        lease.acquire(store, "data", A, at.clock)
    at.sleep(5)
    held = lease.acquire(store, "data", A, at.clock)
    assert (held.epoch, held.since) == (1, 1005)

    store.lose = 1
    at.sleep(10)
    with pytest.raises(Unavailable):
        lease.renew(store, held, at.clock)
    assert held.lost_at == 1032
    at.sleep(2)
    held = lease.renew(store, held, at.clock)

    assert (held.epoch, held.since, held.record.renewed) == (1, 1017, 4)


def test_a_store_that_is_away_for_a_while_does_not_begin_the_wait_anew(store: MemoryStore, at: Time) -> None:
    lease.acquire(store, "data", A, at.clock)

    class Away(MemoryStore):
        def stat(self, key: str) -> ObjectInfo:
            if 1010 < at.now < 1030:
                raise Unavailable("away")
            return store.stat(key)

        read, write = store.read, store.write

    assert lease.acquire(Away(), "data", B, at.clock, patience=100).since < 1036


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b"\xff", b'{"epoch": 0}', b'{"epoch":1,"owner":{"x":1},"ttl":1,"renewed":1,"until":1}']
)
def test_a_lease_that_is_none_is_corrupt_and_stays(text: bytes, store: MemoryStore, at: Time) -> None:
    store.write("leases/data", [text])

    with pytest.raises(Corrupt, match="'leases/data'"):
        lease.acquire(store, "data", A, at.clock, patience=100)

    assert b"".join(store.read("leases/data")) == text


def test_a_name_that_is_no_key_is_refused(store: MemoryStore, at: Time) -> None:
    with pytest.raises(Invalid):
        lease.acquire(store, "../data", A, at.clock)


_RACER = """
import sys
from pathlib import Path
from orlop.errors import Busy
from orlop.objects.files import FileStore
from orlop.volumes.bucket import lease
try:
    held = lease.acquire(FileStore(Path(sys.argv[1])), "data", lease.Owner("n" + sys.argv[2], "boot"), lease.Clock())
    print(held.epoch)
except Busy:
    print("busy")
"""


def test_of_processes_that_race_for_it_one_has_it(tmp_path: Path) -> None:
    racers = [
        subprocess.Popen([sys.executable, "-c", _RACER, tmp_path, str(number)], stdout=subprocess.PIPE, text=True)
        for number in range(6)
    ]

    said = sorted(racer.communicate(timeout=60)[0].strip() for racer in racers)

    assert said == ["1", *["busy"] * 5]


def test_real_clocks_move_a_lease_from_a_dead_process(tmp_path: Path) -> None:
    store, begin = FileStore(tmp_path), time.monotonic()
    dead = lease.acquire(store, "data", A, Clock(), ttl=1)

    held = lease.acquire(store, "data", B, Clock(), ttl=1, patience=20)

    assert held.epoch == 2
    assert time.monotonic() - begin >= 1.1
    assert not dead.held(Clock().now())
