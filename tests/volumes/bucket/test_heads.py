"""The head of a volume moves for the newest epoch only, whatever comes late."""

import json

import pytest
from tests.volumes.bucket.test_lease import _Lost

from orlop.errors import Corrupt, Unavailable
from orlop.objects.store import MemoryStore
from orlop.volumes.bucket import heads, lease
from orlop.volumes.bucket.lease import Clock, Fenced, Lease, Owner, Record


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def _held(epoch: int, host: str = "n1") -> Lease:
    owner = Owner(host, "boot", f"session-{host}-{epoch}")
    return Lease("data", Record(epoch, owner, 30, 1, 0), owner, "version", 0)


def test_a_new_volume_is_claimed_with_nothing_and_then_moves(store: MemoryStore) -> None:
    assert heads.look(store, "data") is None

    head = heads.claim(store, _held(1))
    assert head.snapshot == heads.NOTHING
    head = heads.publish(store, head, "first")
    head = heads.publish(store, head, "second")

    assert heads.look(store, "data") == head
    assert json.loads(b"".join(store.read("heads/data"))) == {
        "epoch": 1,
        "session": "session-n1-1",
        "snapshot": "second",
        "count": 3,
    }


def test_a_claim_keeps_the_snapshot_and_fences_the_one_before(store: MemoryStore) -> None:
    old = heads.publish(store, heads.claim(store, _held(1)), "first")

    new = heads.claim(store, _held(2, "n2"))

    assert new.snapshot == "first"
    with pytest.raises(Fenced, match="epoch 1 is over"):
        heads.publish(store, old, "late")
    with pytest.raises(Fenced, match="is of epoch 2, and ours is 1"):
        heads.claim(store, _held(1))
    assert heads.look(store, "data") == new


def test_a_late_head_that_comes_just_before_the_claim_is_what_is_restored(store: MemoryStore) -> None:
    old = heads.claim(store, _held(1))

    class Slow(MemoryStore):
        """The old holder publishes between our look and our write."""

        stat, read, delete, walk = store.stat, store.read, store.delete, store.walk
        late = True

        def write(self, key, data, *, only_if=None):
            if self.late:
                self.late = False
                heads.publish(store, old, "just in time")
            return store.write(key, data, only_if=only_if)

    assert heads.claim(Slow(), _held(2, "n2")).snapshot == "just in time"


def test_two_holders_of_one_epoch_are_told_apart(store: MemoryStore) -> None:
    heads.claim(store, _held(1, "n1"))

    with pytest.raises(Fenced):
        heads.claim(store, _held(1, "n2"))


def test_lost_answers_are_found_out() -> None:
    store = _Lost()
    store.lose = 1
    with pytest.raises(Unavailable):
        heads.claim(store, _held(1))
    head = heads.claim(store, _held(1))

    store.lose = 1
    with pytest.raises(Unavailable):
        heads.publish(store, head, "first")
    assert heads.publish(store, head, "first").count == 2

    store.lose = 1
    with pytest.raises(Unavailable):
        heads.publish(store, head, "second")
    assert heads.publish(store, head, "third").snapshot == "third"


def test_a_head_that_was_deleted_is_not_made_again_by_a_publication(store: MemoryStore) -> None:
    head = heads.claim(store, _held(1))
    store.delete("heads/data")

    with pytest.raises(Fenced):
        heads.publish(store, head, "first")


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"epoch": "x", "session": "", "snapshot": "", "count": 1}'])
def test_a_head_that_is_none_is_corrupt_and_stays(text: bytes, store: MemoryStore) -> None:
    store.write("heads/data", [text])

    with pytest.raises(Corrupt, match="'heads/data'"):
        heads.claim(store, _held(1))

    assert b"".join(store.read("heads/data")) == text


def test_the_way_of_a_volume_from_one_host_to_the_next(store: MemoryStore) -> None:
    for host, expected in (("n1", ""), ("n2", "of n1"), ("n3", "of n2")):
        held = lease.acquire(store, "data", Owner(host, "boot"), Clock())
        head = heads.claim(store, held)
        assert head.snapshot == expected
        heads.publish(store, head, f"of {host}")
        lease.release(store, held, Clock())

    assert heads.look(store, "data").epoch == 3
