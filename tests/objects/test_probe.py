"""A store that ignores conditions is caught, whichever it ignores, and nothing of the probe stays."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from orlop.errors import Unavailable
from orlop.objects.files import FileStore
from orlop.objects.places import locate
from orlop.objects.probe import probe, require_single_winner
from orlop.objects.store import ABSENT, MemoryStore, ObjectInfo, ObjectStore


def test_stores_that_keep_their_promises_pass(
    tmp_path: Path, seaweed_store: ObjectStore, azurite_store: ObjectStore
) -> None:
    for store in (MemoryStore(), FileStore(tmp_path), seaweed_store, azurite_store):
        require_single_winner(store)

        assert list(store.walk()) == []


def test_a_server_that_ignores_conditions_is_refused_in_words(careless: dict[str, str]) -> None:
    store = locate("s3://bucket", careless)

    promises = probe(store)

    assert (promises.conditional_create, promises.conditional_update) == (False, False)
    # In its races some fail for reasons of its own: now and then that looks like one winner.
    assert not promises.single_winner
    assert promises.reads_at_once
    with pytest.raises(Unavailable, match=r"'s3://bucket'.*overwrites an object that was only to be created.*one host"):
        require_single_winner(store)
    # What was deleted it may bring back: a write of a race that it was still about to do.
    assert all(info.key.startswith("probe/") for info in store.walk())


class _Checks(MemoryStore):
    """Looks first and writes then, as some servers do: right in sequence, wrong in a race."""

    def __init__(self, pause: float) -> None:
        super().__init__()
        self._pause = pause

    def write(self, key: str, data: Iterable[bytes], *, only_if: str | None = None) -> ObjectInfo:
        content = b"".join(data)
        if only_if is not None:
            info = super().write(f"{key}-tried", [b""])
            found = next((each.version for each in self.walk(key) if each.key == key), ABSENT)
            if found != only_if:
                return super().write(key, [content], only_if=only_if)
            time.sleep(self._pause)
            assert info
        return super().write(key, [content])


def test_a_store_that_checks_and_writes_in_two_steps_is_caught_by_the_races() -> None:
    promises = probe(_Checks(0.01))

    assert promises.conditional_create
    assert promises.conditional_update
    assert not promises.one_creator
    assert not promises.one_updater
    assert not promises.single_winner


class _Lagging(MemoryStore):
    """Lists what was there a moment ago."""

    def walk(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return (info for info in super().walk(prefix) if info.modified < time.time() - 0.5)


def test_a_listing_that_lags_is_named_and_no_reason_to_refuse() -> None:
    store = _Lagging()

    assert probe(store).missing() == ["it does not list at once what was written"]
    require_single_winner(store)


def test_a_store_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no folder"):
        probe(FileStore(tmp_path / "absent"))
