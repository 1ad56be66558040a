"""Saves and prunes on one repository, operation by operation in an order that is drawn: nothing is lost in any."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec
import pytest
from tests.snapshots.parts import PASSWORD
from tests.snapshots.turns import InTurns, Turns

from orlop.errors import Busy, Unavailable
from orlop.objects.store import MemoryStore
from orlop.snapshots import ahead, indexcache, indexes, prune, pruneplan, times, writer
from orlop.snapshots.check import check
from orlop.snapshots.documents import SnapshotFile
from orlop.snapshots.repository import Repository

SAVERS = ("saver 0", "saver 1", "saver 2")
PRUNES = ("prune 0", "prune 1")
FILE = {"type": "file", "mode": 420, "uid": 0, "gid": 0, "size": 1}


@pytest.fixture(scope="module")
def key() -> Repository:
    """What all repositories here are made of: a password's key takes longer than a play."""
    return Repository.create(MemoryStore(), PASSWORD)


@pytest.fixture(autouse=True)
def _one_thing_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """In each actor, so that the order is the one that was drawn; nobody pauses, and few small packs are many."""
    monkeypatch.setattr(writer, "_UPLOADS", 1)
    monkeypatch.setattr(ahead, "MOST", 1)
    monkeypatch.setattr(indexes, "_PAUSES", (0.0,) * 30)
    monkeypatch.setattr(pruneplan, "_FEW", 3)
    monkeypatch.setattr(indexcache, "_LEAST", 1)
    monkeypatch.setattr(indexcache, "_SHARE", 1 << 30)


class Play:
    """Three save and forget, and some prune; ``kept`` has the snapshots that nobody forgot, and what is in them.

    With a ``cache`` those who save are processes of one host, which begin anew each time with what is kept there; some
    of them save what is in a snapshot before, forgotten or not, ``unasked`` times without looking for its blobs.
    """

    def __init__(
        self, key: Repository, turns: Turns, prunes: Sequence[str] = PRUNES[:1], cache: Path | None = None
    ) -> None:
        self._key, self.turns, self._prunes, self.store, self._cache = key, turns, prunes, MemoryStore(), cache
        self.kept: dict[str, Sequence[bytes]] = {}
        self.unasked = 0
        self._before: dict[str, tuple[Sequence[bytes], bytes]] = {}
        self._stores: dict[str, InTurns] = {}

    def run(self) -> None:
        actors: dict[str, Callable[[], object]] = {"undertaker": self._bury}
        for name in SAVERS:
            actors[name] = partial(self._save_often, self._as(name), random.Random(self.turns.random.random()))
        for name in self._prunes:
            actors[name] = partial(self._prune_often, self._as(name))
        self.turns.play(actors)

    def repository(self) -> Repository:
        """As somebody sees it who looks while all the others stand still."""
        return Repository(self.store, self._key.sealing_keys, self._key.config, "")

    def bury(self) -> None:
        """The locks of the dead go: at once on their own host, after half an hour elsewhere."""
        for actor in self.turns.killed:
            self.store.delete(self._stores[actor].lock or "locks/none")

    def look(self, *, live: bool) -> None:
        """Whatever is kept can be read now; ``live`` for not even in a pack that is marked."""
        repository = self.repository()
        has = repository.has if live else repository.can_read
        for name in self.kept:
            tree = bytes.fromhex(repository.snapshot(name).tree)
            assert has("tree", tree), f"tree of {name}"
            assert all(has("data", blob) for blob in blobs(repository, name)), f"data of {name}"

    def _as(self, actor: str) -> Repository:
        self._stores[actor] = store = InTurns(self.store, self.turns, actor)
        return Repository(store, self._key.sealing_keys, self._key.config, "")

    def _save_often(self, repository: Repository, choice: random.Random) -> None:
        mine: list[str] = []
        for _ in range(3):
            if self._cache is not None:
                repository = Repository(repository.store, self._key.sealing_keys, self._key.config, "", self._cache)
            mine.append(self._save(repository, choice))
            if len(mine) > 1 and choice.random() < 0.7:
                forgotten = mine.pop(0)
                del self.kept[forgotten]
                repository.forget(forgotten)

    def _save(self, repository: Repository, choice: random.Random) -> str:
        contents = [b"%d" % number for number in choice.sample(range(8), 3)]
        parent = choice.choice([*self._before, ""])
        with writer.Writer(repository) as session:
            if parent and session.has_whole(parent):
                contents, tree = self._before[parent]
                self.unasked += 1
            else:
                tree = self._tree(session, choice, contents)
            name = session.commit(SnapshotFile(times.written(time.time_ns()), tree.hex(), paths=["/data"]))
        self.kept[name], self._before[name] = contents, (contents, tree)
        self.look(live=False)
        return name

    @staticmethod
    def _tree(session: writer.Writer, choice: random.Random, contents: Sequence[bytes]) -> bytes:
        nodes = []
        for content in contents:
            blob = session.add("data", content).hex()
            nodes.append({**FILE, "name": content.decode(), "content": [blob]})
            if choice.random() < 0.3:
                session.flush()
        return session.add("tree", msgspec.json.encode({"nodes": nodes}) + b"\n")

    def _prune_often(self, repository: Repository) -> None:
        for _ in range(6):
            try:
                prune.prune(repository, grace=0)
            except (Busy, Unavailable):
                continue
            # Not even in a pack that is marked: restic would take that for lost.
            self.look(live=True)

    def _bury(self) -> None:
        for _ in range(100):
            self.turns.take("undertaker")
            self.bury()


def blobs(repository: Repository, snapshot: str) -> list[bytes]:
    tree = repository.read("tree", bytes.fromhex(repository.snapshot(snapshot).tree))
    return [bytes.fromhex(node["content"][0]) for node in msgspec.json.decode(tree)["nodes"]]


def nothing_is_lost(play: Play, seed: int) -> None:
    assert not play.turns.errors, (seed, play.turns.errors)
    play.bury()
    repository = play.repository()
    assert check(repository, read_data=True) == [], seed
    assert play.kept.keys() <= repository.snapshots().keys(), seed
    for name, contents in play.kept.items():
        assert [repository.read("data", blob) for blob in blobs(repository, name)] == contents, seed


def no_order_loses_anything(key: Repository, seeds: range, caches: Path) -> None:
    unasked = 0
    for seed in seeds:
        play = Play(key, Turns(seed), cache=caches / f"{seed}" if seed % 2 else None)
        play.run()
        nothing_is_lost(play, seed)
        play.look(live=True)
        unasked += play.unasked
    assert unasked > len(seeds) // 10


def no_kill_loses_anything(key: Repository, seeds: range, caches: Path) -> None:
    died: Mapping[str, int] = dict.fromkeys((*SAVERS, *PRUNES), 0)
    for seed in seeds:
        play = Play(key, Turns(seed, died, 0.01), PRUNES, caches / f"{seed}" if seed % 2 else None)
        play.run()
        died = {name: count + (name in play.turns.killed) for name, count in died.items()}
        nothing_is_lost(play, seed)
        for _ in range(4):
            prune.prune(play.repository(), grace=0)
        nothing_is_lost(play, seed)
        play.look(live=True)
        assert not prune.prune(play.repository(), grace=0).actions, seed
    assert all(died.values())


@pytest.mark.part("S5")
def test_in_no_order_of_saves_and_prunes_is_anything_lost(key: Repository, tmp_path: Path) -> None:
    no_order_loses_anything(key, range(50), tmp_path)


@pytest.mark.part("S5")
def test_kills_among_saves_and_prunes_lose_nothing_in_any_order(key: Repository, tmp_path: Path) -> None:
    no_kill_loses_anything(key, range(50), tmp_path)


@pytest.mark.campaign
@pytest.mark.part("S5")
@pytest.mark.timeout(1800)
def test_many_orders(key: Repository, tmp_path: Path) -> None:
    no_order_loses_anything(key, range(1000, 3000), tmp_path)


@pytest.mark.campaign
@pytest.mark.part("S5")
@pytest.mark.timeout(1800)
def test_many_kills(key: Repository, tmp_path: Path) -> None:
    no_kill_loses_anything(key, range(1000, 3000), tmp_path)
