"""Histories of hosts that fight for a volume, in the manner of Jepsen: bad luck, then a check of what they did."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
from tests.volumes.bucket.simulation import History, Host, Luck, World

from orlop.errors import Busy, Unavailable
from orlop.volumes.bucket import heads, lease
from orlop.volumes.bucket.lease import Fenced, Owner

NAME = "data"


def play(seed: int, luck: Luck | None = None, hosts: int = 3) -> tuple[World, History]:
    world, history = World(seed, luck), History()
    for number in range(hosts):
        world.host(f"n{number}", lambda host: _attach_and_write(host, history))
    world.run()
    return world, history


def _attach_and_write(host: Host, history: History) -> None:
    """What a driver does: lease, head, restore, write and publish while the lease is held, release."""
    chance = host.world.chance
    owner = Owner(host.name, f"boot-{host.lives}", f"{host.name}-{host.lives}-{len(history.restored)}")
    try:
        held = lease.acquire(host.store, NAME, owner, host.clock, patience=chance.uniform(0, 200))
        head = heads.claim(host.store, held)
        if not held.held(host.clock.now()):
            return
        history.restored.append((held.epoch, head.snapshot))
        for turn in range(chance.randrange(1, 12)):
            held = _renewed(host, held)
            if not held.held(host.clock.now()):
                return
            history.writes.append((host.world.now, held.epoch, owner.session))
            if chance.random() < 0.5:
                snapshot = f"{held.epoch}-{owner.session}-{turn}"
                # A holder that does not know yet that it has lost the lease: the head must know.
                head = heads.publish(host.store, head, snapshot)
                history.published.append((held.epoch, snapshot))
            host.clock.sleep(chance.uniform(0, 8))
        lease.release(host.store, held, host.clock)
    except (Busy, Fenced, Unavailable):
        host.clock.sleep(chance.uniform(0, 5))


def _renewed(host: Host, held: lease.Lease) -> lease.Lease:
    if host.clock.now() < held.renew_at:
        return held
    try:
        return lease.renew(host.store, held, host.clock)
    except Unavailable:
        return held


def check(world: World, history: History) -> None:
    """Raises `AssertionError` with what is wrong."""
    sessions: dict[int, str] = {}
    for (_, before, _), (when, epoch, session) in pairwise([(0.0, 0, ""), *history.writes]):
        assert epoch >= before, f"epoch {epoch} writes after {before}, at {when}"
        assert sessions.setdefault(epoch, session) == session, f"two writers in epoch {epoch}, at {when}"
    _check_objects(world)
    snapshots = [json.loads(body)["snapshot"] for key, body in world.changes if key == f"heads/{NAME}"]
    for _, snapshot in history.published:
        assert snapshot in snapshots, f"{snapshot} was acknowledged and never was the head"


def _check_objects(world: World) -> None:
    for key, grows in ((f"leases/{NAME}", "renewed"), (f"heads/{NAME}", "count")):
        states = [json.loads(body) for changed, body in world.changes if changed == key]
        for before, after in pairwise(states):
            assert after["epoch"] >= before["epoch"], f"the epoch of {key} went back"
            assert after[grows] == before[grows] + 1, f"a change of {key} was lost"
            if key.startswith("heads") and after["epoch"] > before["epoch"]:
                assert after["snapshot"] == before["snapshot"], "a claim lost a snapshot"


@pytest.mark.parametrize("block", range(10))
def test_no_history_has_two_writers(block: int) -> None:
    done = 0
    for seed in range(block * 60, block * 60 + 60):
        world, history = play(seed)
        check(world, history)
        done += len({epoch for epoch, _ in history.restored})

    # Volumes do move: otherwise nothing was tried.
    assert done > 60 * 5


@pytest.mark.campaign
@pytest.mark.parametrize("block", range(50))
def test_no_history_of_thousands_has_two_writers(block: int) -> None:
    for seed in range(100_000 + block * 100, 100_000 + block * 100 + 100):
        check(*play(seed, Luck(pause=0.02 + block / 500, kill=0.002 + block / 5000), hosts=2 + block % 4))


def test_clocks_that_are_far_off_let_two_write_but_never_publish() -> None:
    overlaps = 0
    for seed in range(60):
        world, history = play(seed, Luck(drift=0.8, lost=0.02, unknown=0.02, pause=0, kill=0.001))
        _check_objects(world)
        overlaps += any(before > after for (_, before, _), (_, after, _) in pairwise(history.writes))

    assert overlaps > 0


@pytest.mark.parametrize("broken", ["no patience", "no condition", "counted from the answer", "no claim"])
def test_a_broken_protocol_is_found(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*_BROKEN[broken])

    with pytest.raises(AssertionError, match=r"writes after|two writers|went back|was lost|lost a"):
        for seed in range(200):
            check(*play(seed))


_write = lease._write


def _unconditional(store, name, record, owner, version, clock):
    return _write(_Unconditional(store), name, record, owner, version, clock)


def _from_the_answer(store, name, record, owner, version, clock):
    return replace(_write(store, name, record, owner, version, clock), since=clock.now())


def _unclaimed(store, held):
    found = heads.look(store, held.name) or heads.Head(held.name, 0, "", "", 0, "")
    return replace(found, epoch=held.epoch, session=held.owner.session)


class _Unconditional:
    def __init__(self, store) -> None:
        self._store = store

    def write(self, key, data, *, only_if=None):
        return self._store.write(key, data)


# The protocol with one of its ideas taken out.
_BROKEN = {
    "no patience": (lease._Watch, "over", lambda self, version, record, now: True),
    "no condition": (lease, "_write", _unconditional),
    "counted from the answer": (lease, "_write", _from_the_answer),
    "no claim": (heads, "claim", _unclaimed),
}
