"""What a host keeps of a repository's index: read once, right whatever others do, and none if damaged."""

import hashlib
import os
import random
import stat
import subprocess
from pathlib import Path

import pytest
from tests.snapshots.parts import PASSWORD, FolderStore
from tests.snapshots.test_repository import Watched, saved

from orlop.snapshots import indexcache
from orlop.snapshots.prune import prune
from orlop.snapshots.repository import Repository
from orlop.snapshots.table import Table

BLOBS = [b"%d" % number for number in range(20)]


@pytest.fixture(autouse=True)
def _few_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexcache, "_LEAST", 5)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def store(tmp_path: Path, cache: Path) -> Watched:
    """A repository with `BLOBS`, and a cache of its index."""
    store = Watched(tmp_path / "repository")
    store.asked = []
    saved(Repository.create(store, PASSWORD, cache=cache), *BLOBS)
    store.asked.clear()
    return store


def kept(cache: Path) -> Path:
    (file,) = cache.glob("index-*")
    return file


def has(repository: Repository, *blobs: bytes) -> bool:
    return all(repository.has("data", hashlib.sha256(blob).digest()) for blob in blobs)


@pytest.mark.part("S2")
def test_another_process_reads_only_index_files_that_are_new(store: Watched, cache: Path) -> None:
    repository = Repository.open(store, PASSWORD, cache=cache)
    fresh = Repository.open(store, PASSWORD)

    assert has(repository, *BLOBS)
    assert "read index" not in store.asked
    for blob in BLOBS:
        place = repository.place("data", hashlib.sha256(blob).digest())
        assert place == fresh.place("data", hashlib.sha256(blob).digest())
        assert repository.read("data", hashlib.sha256(blob).digest()) == blob

    saved(Repository.open(FolderStore(store.root), PASSWORD), b"by another host")
    store.asked.clear()
    again = Repository.open(store, PASSWORD, cache=cache)
    assert has(again, *BLOBS, b"by another host")
    assert store.asked.count("read index") == 1


def test_it_is_written_again_when_much_is_new_and_not_before(store: Watched, cache: Path) -> None:
    def grown(*blobs: bytes) -> int:
        saved(Repository.open(store, PASSWORD, cache=cache), *blobs)
        return kept(cache).stat().st_ino

    before = kept(cache).stat().st_ino
    assert grown(b"one", b"two") == before
    assert grown(*(b"more %d" % number for number in range(5))) != before
    store.asked.clear()
    assert has(Repository.open(store, PASSWORD, cache=cache), *BLOBS, b"one", b"two", b"more 4")
    assert "read index" not in store.asked


@pytest.mark.part("S5")
def test_what_a_prune_marked_or_took_away_is_not_there_whatever_was_kept(store: Watched, cache: Path) -> None:
    repository = Repository.open(FolderStore(store.root), PASSWORD)
    for name in repository.snapshots():
        repository.forget(name)

    prune(repository, grace=3600)
    marked = Repository.open(store, PASSWORD, cache=cache)
    assert not has(marked, *BLOBS)
    assert marked.can_read("data", hashlib.sha256(BLOBS[0]).digest())
    saved(marked, b"new")  # and it is kept with the mark
    marked = Repository.open(store, PASSWORD, cache=cache)
    assert not has(marked, *BLOBS)
    assert marked.can_read("data", hashlib.sha256(BLOBS[0]).digest())

    for _ in range(3):
        prune(repository, grace=0)
    store.asked.clear()
    gone = Repository.open(store, PASSWORD, cache=cache)
    assert not gone.can_read("data", hashlib.sha256(BLOBS[0]).digest())
    assert "read index" in store.asked
    saved(gone, *BLOBS)
    assert has(Repository.open(FolderStore(store.root), PASSWORD), *BLOBS)


@pytest.mark.part("S2")
def test_one_that_is_damaged_or_not_ours_is_none(store: Watched, cache: Path, tmp_path: Path) -> None:
    whole, chance = kept(cache).read_bytes(), random.Random(1)
    saved(Repository.create(FolderStore(tmp_path / "other"), PASSWORD, cache=tmp_path / "others"), *BLOBS)
    bad = [b"", whole[:7], whole[: len(whole) // 2], whole[:-1], whole + b"x", kept(tmp_path / "others").read_bytes()]
    bad += [whole[:7] + length + whole[8:] for length in (b"\x10", b"\xff")]  # more than there is memory, or numbers
    for _ in range(50):
        place = chance.randrange(len(whole))
        bad.append(whole[:place] + bytes([whole[place] ^ 1 << chance.randrange(8)]) + whole[place + 1 :])

    for content in bad:
        kept(cache).write_bytes(content)
        store.asked.clear()
        assert has(Repository.open(store, PASSWORD, cache=cache), *BLOBS)
        assert not has(Repository.open(store, PASSWORD, cache=cache), b"x")
        assert store.asked.count("read index") == 2


def test_what_a_killed_process_left_is_swept_away_when_it_is_old(store: Watched, cache: Path) -> None:
    old, young = (kept(cache).with_suffix(f".{pid}.new") for pid in (1, 2))
    old.touch()
    young.touch()
    os.utime(old, (0, 0))

    saved(Repository.open(store, PASSWORD, cache=cache), *(b"more %d" % number for number in range(5)))

    assert young.exists()
    assert not old.exists()


def test_it_is_for_nobody_else_and_says_nothing(store: Watched, cache: Path) -> None:
    content = kept(cache).read_bytes()

    assert stat.S_IMODE(kept(cache).stat().st_mode) == 0o600
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    for blob in BLOBS:
        assert hashlib.sha256(blob).digest() not in content
        assert hashlib.sha256(blob).hexdigest().encode() not in content


def test_a_host_that_can_keep_nothing_saves_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    repository = Repository.create(FolderStore(tmp_path / "repository"), PASSWORD, cache=tmp_path / "file")

    saved(repository, *BLOBS)

    assert has(Repository.open(FolderStore(tmp_path / "repository"), PASSWORD, cache=tmp_path / "file"), *BLOBS)


@pytest.mark.skipif(os.geteuid() != 0, reason="filesystems need root")
def test_a_full_disk_keeps_what_it_had_and_no_half_of_anything_else(
    store: Watched, cache: Path, tmp_path: Path
) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", cache], check=True)
    try:
        saved(Repository.open(store, PASSWORD, cache=cache), b"few")
        before = kept(cache).read_bytes()
        saved(Repository.open(store, PASSWORD, cache=cache), *(b"many %d" % number for number in range(1000)))

        assert kept(cache).read_bytes() == before
        assert has(Repository.open(store, PASSWORD, cache=cache), *BLOBS, b"few", b"many 999")
    finally:
        subprocess.run(["umount", cache], check=True)


@pytest.mark.parametrize("count", [0, 1, 1000, 40_000, 300_000])
def test_a_table_is_the_same_after_it_was_kept(count: int) -> None:
    chance, table, again = random.Random(count), Table(4), Table(4)
    records = [chance.randbytes(36) for _ in range(count)]
    table.load(records[: count // 2])
    for record in records[count // 2 : count // 2 + 1000]:
        table.add(record[:32], record[32:])
    table.load(records[count // 2 + 1000 :])
    every = dict(table.items())

    for ids, values in table.runs():
        again.take(ids, values)

    assert len(every) == count
    assert dict(table.items()) == dict(again.items()) == every
    asked = [*(record[:32] for record in records[::7]), os.urandom(32)]
    assert again.get_all(asked) == [*(record[32:] for record in records[::7]), None]
    assert again.add(os.urandom(32), b"more")
