"""The contract of every `ObjectStore`, as tests: subclass it, give it an empty store, and run pytest.

    class TestMyStore(ObjectStoreContract):
        @pytest.fixture
        def store(self, tmp_path):
            return MyStore(tmp_path)

Beside single cases it plays random ones with hypothesis, on the store and on `MemoryStore`, which have to agree.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import ClassVar

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from orlop.errors import Conflict, Invalid, NotFound, OrlopError
from orlop.objects.probe import probe
from orlop.objects.store import ABSENT, MemoryStore, ObjectStore
from orlop.objects.wrappers import Prefixed

_ODD_ORDER = ("a-b", "a.b", "a/b", "a/b-c", "a/c/d", "a0", "ab", "b")
"""In the order of keys, which is not the order in which a tree of folders is walked."""
_REFUSED = ("", "/a", "a/", "a//b", ".", "..", "a/../b", ".hidden", "a b", "a\n", "ä", "a\\b", "k" * 901)


class ObjectStoreContract:
    """What everything that keeps data in objects relies on."""

    examples: ClassVar[int] = 30
    """How many random stories are played; fewer where each step goes over a network."""

    def test_what_was_written_is_read(self, store: ObjectStore) -> None:
        """Also in pieces, and also nothing."""
        store.write("some", [b"one ", b"", b"two"])
        store.write("none", [])

        assert _content(store, "some") == b"one two"
        assert _content(store, "none") == b""
        assert (store.stat("some").size, store.stat("none").size) == (7, 0)

    def test_a_part_is_read(self, store: ObjectStore) -> None:
        """What is beyond the end is not there."""
        store.write("digits", [b"0123456789"])

        parts = [(0, 3), (4, None), (8, 90), (10, None), (90, None), (90, 95), (5, 5), (0, 0)]

        assert [b"".join(store.read("digits", *part)) for part in parts] == [
            *(b"012", b"456789", b"89", b"", b"", b"", b"", b"")
        ]

    def test_twenty_megabytes_come_and_go_in_pieces(self, store: ObjectStore) -> None:
        """More than any store takes in one part."""
        block = bytes(range(256)) * 4096

        written = store.write("large", (block for _ in range(20)))

        pieces = list(store.read("large"))
        assert written.size == 20 * len(block)
        assert b"".join(pieces) == block * 20
        assert max(map(len, pieces)) < written.size
        assert b"".join(store.read("large", len(block) * 15 - 1, len(block) * 15 + 2)) == b"\xff\0\1"

    def test_what_is_not_there_is_not_found(self, store: ObjectStore) -> None:
        """By every verb that needs it."""
        for ask in (store.stat, lambda key: list(store.read(key)), lambda key: list(store.read(key, 3, 3))):
            with pytest.raises(NotFound, match="absent"):
                ask("some/absent")

    def test_what_is_deleted_is_gone_and_may_be_deleted_again(self, store: ObjectStore) -> None:
        """And may be created again."""
        store.write("a/b", [b"old"])

        store.delete("a/b")
        store.delete("a/b")

        assert list(store.walk()) == []
        with pytest.raises(NotFound):
            store.stat("a/b")
        store.write("a/b", [b"new"], only_if=ABSENT)
        assert _content(store, "a/b") == b"new"

    @pytest.mark.parametrize("key", _REFUSED)
    def test_a_key_that_is_none_is_refused_by_every_verb(self, store: ObjectStore, key: str) -> None:
        """Whatever it would mean there."""
        for ask in (
            *(store.stat, store.delete, lambda key: list(store.read(key))),
            lambda key: store.write(key, [b""]),
            lambda key: store.write(key, [b""], only_if=ABSENT),
        ):
            with pytest.raises(Invalid):
                ask(key)
        assert list(store.walk()) == []

    def test_only_an_absent_object_is_created(self, store: ObjectStore) -> None:
        """`ABSENT` is kept."""
        store.write("one", [b"first"], only_if=ABSENT)

        with pytest.raises(Conflict, match="one"):
            store.write("one", [b"second"], only_if=ABSENT)

        assert _content(store, "one") == b"first"

    def test_only_the_version_that_is_there_is_replaced(self, store: ObjectStore) -> None:
        """What a write answers is what `stat` says."""
        first = store.write("one", [b"first"])
        second = store.write("one", [b"second"], only_if=first.version)

        with pytest.raises(Conflict, match="one"):
            store.write("one", [b"third"], only_if=first.version)

        assert _content(store, "one") == b"second"
        assert store.stat("one").version == second.version != first.version

    def test_a_deleted_object_is_not_replaced(self, store: ObjectStore) -> None:
        """Its version is gone with it."""
        first = store.write("one", [b"first"])
        store.delete("one")

        with pytest.raises(Conflict):
            store.write("one", [b"second"], only_if=first.version)

        assert list(store.walk()) == []

    def test_a_version_changes_however_fast_contents_do(self, store: ObjectStore) -> None:
        """Within one tick of any clock."""
        versions = [store.write("one", [b"%03d" % number]).version for number in range(30)]

        assert len(set(versions)) == 30

    def test_data_that_fails_leaves_what_was_there(self, store: ObjectStore) -> None:
        """The error passes through as it is, whatever its kind and whenever it comes."""
        store.write("one", [b"first"])
        for megabytes in (0, 1, 12):
            with pytest.raises(FileNotFoundError, match="my own"):
                store.write("one", _failing(megabytes))
            with pytest.raises(FileNotFoundError, match="my own"):
                store.write("two", _failing(megabytes), only_if=ABSENT)

        assert _content(store, "one") == b"first"
        assert [info.key for info in store.walk()] == ["one"]

    def test_objects_are_listed_in_the_order_of_their_keys(self, store: ObjectStore) -> None:
        """Which is not that of folders: ``a-b`` comes before ``a/b``."""
        for key in reversed(_ODD_ORDER):
            store.write(key, [key.encode()])

        found = list(store.walk())

        assert [info.key for info in found] == list(_ODD_ORDER)
        assert [info.size for info in found] == [len(key) for key in _ODD_ORDER]
        assert max(abs(info.modified - found[0].modified) for info in found) < 300

    @pytest.mark.parametrize("prefix", ["a", "a/", "a/b", "a/b-", "a/c/d", "x", "a/x/", "..", "/", "a//"])
    def test_any_beginning_of_keys_is_a_prefix(self, store: ObjectStore, prefix: str) -> None:
        """Also one that ends in the middle of a name."""
        for key in _ODD_ORDER:
            store.write(key, [])

        assert [info.key for info in store.walk(prefix)] == [key for key in _ODD_ORDER if key.startswith(prefix)]

    def test_a_few_thousand_objects_are_listed(self, store: ObjectStore) -> None:
        """More than a page of any store."""
        keys = [f"many/{number:04}" for number in range(self.examples * 40 + 50)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: store.write(key, []), keys))

        assert [info.key for info in store.walk()] == keys

    def test_it_keeps_every_promise_of_the_probe(self, store: ObjectStore) -> None:
        """Races among them; and nothing of it stays."""
        promises = probe(store)

        assert promises.missing() == []
        assert promises.single_winner
        assert list(store.walk()) == []

    def test_a_counter_that_many_increment_loses_none(self, store: ObjectStore) -> None:
        """Read, then write on condition, until it holds."""
        store.write("counter", [b"0"])

        def increment(_: int) -> None:
            while True:
                before = store.stat("counter").version
                number = int(_content(store, "counter"))
                try:
                    store.write("counter", [b"%d" % (number + 1)], only_if=before)
                except Conflict:
                    continue
                return

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(increment, range(20)))
        assert _content(store, "counter") == b"20"

    def test_a_reader_sees_one_version_while_others_write(self, store: ObjectStore) -> None:
        """The whole of it, whichever it is."""
        size, stop = 3 << 20, threading.Event()
        store.write("one", [b"a" * size])

        def write() -> None:
            while not stop.is_set():
                for letter in (b"b", b"c"):
                    store.write("one", [letter * size])

        with ThreadPoolExecutor(2) as pool:
            writing = pool.submit(write)
            try:
                seen = [_content(store, "one") for _ in range(15)]
            finally:
                stop.set()
            writing.result()
        assert {len(content) for content in seen} == {size}
        assert all(len(set(content)) == 1 for content in seen)

    def test_random_stories_end_as_in_memory(self, store: ObjectStore) -> None:
        """Every answer of the store and of `MemoryStore` is the same, errors included."""
        stories = count()

        class Story(_Story):
            def __init__(self) -> None:
                super().__init__(Prefixed(store, f"story-{next(stories)}/"))

        patient = settings(
            max_examples=self.examples,
            stateful_step_count=25,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        run_state_machine_as_test(Story, settings=patient)


class _Story(RuleBasedStateMachine):
    """The same verbs on both stores."""

    keys = st.sampled_from(_ODD_ORDER)
    contents = st.binary(max_size=6)

    def __init__(self, store: ObjectStore) -> None:
        super().__init__()
        self.store, self.model = store, MemoryStore()
        self.older: dict[str, list[tuple[bytes, str]]] = {}

    @rule(key=keys, content=contents)
    def write(self, key: str, content: bytes) -> None:
        self._note(key, content, self.store.write(key, [content]).version)
        self.model.write(key, [content])

    @rule(key=keys, content=contents)
    def create(self, key: str, content: bytes) -> None:
        if not self._both(lambda store: bool(store.write(key, [content], only_if=ABSENT))):
            return
        self._note(key, content, self.store.stat(key).version)

    @rule(key=keys, content=contents)
    def update(self, key: str, content: bytes) -> None:
        self._both(lambda store: bool(store.write(key, [content], only_if=store.stat(key).version)))

    @rule(key=keys, content=contents, number=st.integers(0, 9))
    def update_too_late(self, key: str, content: bytes, number: int) -> None:
        there = _answer(lambda: _content(self.model, key))
        # A version of the same content may be the same.
        stale = [version for written, version in self.older.get(key, []) if written != there]
        if stale:
            with pytest.raises(Conflict):
                self.store.write(key, [content], only_if=stale[number % len(stale)])

    @rule(key=keys)
    def delete(self, key: str) -> None:
        self._both(lambda store: store.delete(key))

    @rule(key=keys, start=st.integers(0, 7), size=st.none() | st.integers(0, 7))
    def read(self, key: str, start: int, size: int | None) -> None:
        self._both(lambda store: b"".join(store.read(key, start, None if size is None else start + size)))

    @rule(key=keys)
    def stat(self, key: str) -> None:
        self._both(lambda store: store.stat(key).size)

    @rule(key=keys, end=st.integers(0, 5))
    def walk(self, key: str, end: int) -> None:
        self._both(lambda store: [(info.key, info.size) for info in store.walk(key[:end])])

    def _both(self, ask: Callable[[ObjectStore], object]) -> bool:
        """Whether it succeeded; and both stores say the same."""
        answer, expected = _answer(lambda: ask(self.store)), _answer(lambda: ask(self.model))
        assert answer == expected
        return not isinstance(answer, type)

    def _note(self, key: str, content: bytes, version: str) -> None:
        self.older.setdefault(key, []).append((content, version))


def _content(store: ObjectStore, key: str) -> bytes:
    return b"".join(store.read(key))


def _failing(megabytes: int) -> Iterator[bytes]:
    for _ in range(megabytes):
        yield bytes(1 << 20)
    raise FileNotFoundError("my own")


def _answer(ask: Callable[[], object]) -> object:
    """What it says, or the kind of its error."""
    try:
        return ask()
    except OrlopError as error:
        return type(error)
