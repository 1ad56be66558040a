"""Each wrapper keeps the contract of the store inside, and adds its one thing."""

import random
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path

import pytest

from orlop.errors import Conflict, Invalid, NoSpace, NotFound, Unavailable
from orlop.objects.files import FileStore
from orlop.objects.store import ABSENT, MemoryStore, ObjectInfo, ObjectStore
from orlop.objects.wrappers import Cached, Limited, Prefixed, Retrying
from orlop.testing.stores import ObjectStoreContract


class TestPrefixed(ObjectStoreContract):
    @pytest.fixture
    def store(self) -> ObjectStore:
        inside = MemoryStore()
        for neighbour in ("team", "team-b/x", "team/ab/x", "tea"):
            inside.write(neighbour, [b"not ours"])
        return Prefixed(inside, "team/a/")


class TestRetrying(ObjectStoreContract):
    @pytest.fixture
    def store(self) -> ObjectStore:
        return Retrying(MemoryStore())


class TestCached(ObjectStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        return Cached(MemoryStore(), FileStore(tmp_path), 1 << 30, lambda key: key.startswith("never"))


class TestLimited(ObjectStoreContract):
    @pytest.fixture
    def store(self) -> ObjectStore:
        return Limited(MemoryStore(), up=1e9, down=1e9)


class TestAllOfThem(ObjectStoreContract):
    examples = 10

    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        (tmp_path / "near").mkdir()
        (tmp_path / "far").mkdir()
        near, far = FileStore(tmp_path / "near"), Prefixed(FileStore(tmp_path / "far"), "deep/down/")
        return Cached(Retrying(Limited(far, 1e9, 1e9)), near, 1000, lambda key: key.startswith("never"))


class _Flaky:
    """Requests fail before or after they are carried out, as ``fails`` says: "", "before" or "after"."""

    def __init__(self, store: ObjectStore, fails: Iterator[str]) -> None:
        self._store, self._fails = store, fails

    def _ask(self, do: Callable[[], object]) -> object:
        fails = next(self._fails, "")
        if fails == "before":
            raise Unavailable("lost on the way")
        done = do()
        if fails == "after":
            raise Unavailable("lost on the way back")
        return done

    def stat(self, key: str) -> object:
        return self._ask(lambda: self._store.stat(key))

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        yield from self._ask(lambda: list(self._store.read(key, start, end)))

    def write(self, key: str, data: Iterable[bytes], *, only_if: str | None = None) -> object:
        return self._ask(lambda: self._store.write(key, data, only_if=only_if))

    def delete(self, key: str) -> None:
        self._ask(lambda: self._store.delete(key))

    def walk(self, prefix: str = "") -> Iterator[ObjectInfo]:
        infos = self._ask(lambda: list(self._store.walk(prefix)))
        yield from infos[:2]
        self._ask(lambda: None)
        yield from infos[2:]


@pytest.mark.parametrize("seed", range(20))
def test_failures_of_a_store_do_not_show(seed: int) -> None:
    chance, model = random.Random(seed), MemoryStore()
    fails = (chance.choice(["", "", "before", "after"]) for _ in count())
    store = Retrying(_Flaky(MemoryStore(), fails), [0] * 40, lambda _: None)

    for step in range(60):
        key, content = chance.choice("abcd"), f"{seed}-{step}".encode()
        verb = chance.choice(["write", "create", "update", "delete"])
        seen = [_play(each, verb, key, content) for each in (store, model)]

        assert seen[0] == seen[1]


def _play(store: ObjectStore, verb: str, key: str, content: bytes) -> object:
    """What it answers and what is there afterwards."""
    answer: object = "done"
    try:
        if verb == "delete":
            store.delete(key)
        else:
            only_if = {"write": lambda: None, "create": lambda: ABSENT, "update": lambda: store.stat(key).version}
            store.write(key, [content], only_if=only_if[verb]())
    except (Conflict, NotFound) as error:
        answer = type(error)
    return answer, {info.key: b"".join(store.read(info.key)) for info in store.walk()}


def test_a_lost_answer_to_a_create_is_no_conflict() -> None:
    inside = MemoryStore()
    store = Retrying(_Flaky(inside, iter(["after"])), (0,))

    store.write("one", [b"ours"], only_if=ABSENT)

    assert b"".join(inside.read("one")) == b"ours"


def test_a_lost_answer_and_another_writer_is_a_conflict() -> None:
    inside = MemoryStore()
    store = Retrying(_Flaky(inside, iter(["after"])), (0,), lambda _: inside.write("one", [b"theirs"]))

    with pytest.raises(Conflict):
        store.write("one", [b"ours"], only_if=ABSENT)


def test_the_same_content_of_another_is_a_conflict_if_no_answer_was_lost() -> None:
    inside = MemoryStore()
    inside.write("one", [b"same"])

    with pytest.raises(Conflict):
        Retrying(inside).write("one", [b"same"], only_if=ABSENT)


def test_pauses_are_kept_and_the_last_failure_is_told(tmp_path: Path) -> None:
    pauses: list[float] = []
    store = Retrying(FileStore(tmp_path / "absent"), (1, 2, 4), pauses.append)

    with pytest.raises(Unavailable, match="absent"):
        store.stat("one")

    assert pauses == [1, 2, 4]


def test_what_is_an_answer_is_not_asked_again() -> None:
    store = Retrying(MemoryStore(), (1,), lambda _: pytest.fail("asked again"))

    with pytest.raises(NotFound):
        store.stat("one")
    with pytest.raises(Invalid):
        store.stat("/")


def test_a_prefix_that_is_no_key_is_refused() -> None:
    with pytest.raises(Invalid):
        Prefixed(MemoryStore(), "../")


class _Counting(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        self.reads.append(key)
        return super().read(key, start, end)


def test_an_immutable_object_is_fetched_once_and_parts_of_it_come_from_nearby(tmp_path: Path) -> None:
    far = _Counting()
    far.write("index/1", [b"0123456789"])
    far.write("heads/1", [b"changes"])
    store = Cached(far, FileStore(tmp_path), 100, lambda key: key.startswith("index/"))

    assert b"".join(store.read("index/1", 2, 4)) == b"23"
    assert [b"".join(store.read("index/1")) for _ in range(3)] == [b"0123456789"] * 3
    assert b"".join(store.read("index/1", 2, 4)) == b"23"
    assert [b"".join(store.read("heads/1")) for _ in range(2)] == [b"changes"] * 2

    assert far.reads == ["index/1", "index/1", "heads/1", "heads/1"]


def test_the_cache_stays_below_its_limit_also_for_who_opens_it_again(tmp_path: Path) -> None:
    far, near = MemoryStore(), FileStore(tmp_path)
    for number in range(30):
        far.write(f"{number:02}", [bytes(100)])
    far.write("huge", [bytes(2000)])

    for _ in range(2):
        store = Cached(far, near, 1000, lambda _: True)
        for key in [*(f"{number:02}" for number in range(30)), "huge"]:
            assert len(b"".join(store.read(key))) == far.stat(key).size
            assert sum(info.size for info in near.walk()) <= 1000

    assert near.stat("29").size == 100
    with pytest.raises(NotFound):
        near.stat("huge")


def test_a_cache_that_is_broken_or_full_costs_time_only(tmp_path: Path) -> None:
    far = MemoryStore()
    far.write("a", [b"1"])

    class Full(MemoryStore):
        def write(self, key: str, data: Iterable[bytes], *, only_if: str | None = None) -> ObjectInfo:
            raise NoSpace("no space left")

    for near in (FileStore(tmp_path / "absent"), Full()):
        store = Cached(far, near, 100, lambda _: True)

        assert b"".join(store.read("a")) == b"1"
        with pytest.raises(NotFound):
            list(store.read("b"))


def test_bytes_pass_at_the_rate_that_was_set() -> None:
    store = Limited(MemoryStore(), up=1_000_000, down=2_000_000)
    begin = time.monotonic()

    store.write("a", [bytes(50_000)] * 4)
    between = time.monotonic()
    assert len(b"".join(store.read("a"))) == 200_000

    assert 0.19 < between - begin < 1
    assert 0.09 < time.monotonic() - between < 1
