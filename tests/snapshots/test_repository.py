"""A repository beside stock restic: each opens, reads and checks what the other wrote."""

import hashlib
import json
import os
from functools import partial
from pathlib import Path

import msgspec
import pytest
from tests.snapshots.parts import PASSWORD, FolderStore, checked, restic

from orlop.errors import Busy, Conflict, Corrupt, Invalid, NotFound
from orlop.objects.store import MemoryStore
from orlop.snapshots import packs
from orlop.snapshots.documents import IndexFile, SnapshotFile
from orlop.snapshots.packs import pack_key
from orlop.snapshots.repository import Repository
from orlop.snapshots.writer import Writer

EMPTY_TREE = b'{"nodes":[]}\n'
WHEN = "2026-11-22T05:41:23.123456789Z"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "repository"


@pytest.fixture
def repository(place: Path) -> Repository:
    return Repository.create(FolderStore(place), PASSWORD)


def saved(repository: Repository, *blobs: bytes) -> str:
    """A snapshot without files; the blobs are in the repository."""
    with Writer(repository) as writer:
        for blob in blobs:
            writer.add("data", blob)
        tree = writer.add("tree", EMPTY_TREE)
        return writer.commit(SnapshotFile(WHEN, tree.hex(), ["/data"], "host"))


@pytest.mark.part("S2")
def test_restic_checks_and_lists_what_was_written(place: Path, repository: Repository) -> None:
    snapshot = saved(repository, b"", b"x", b"y" * 100_000, os.urandom(3 << 20))

    listed = json.loads(restic(place, "snapshots", "--json"))

    assert [(one["id"], one["time"], one["hostname"]) for one in listed] == [(snapshot, WHEN, "host")]
    checked(place)


@pytest.mark.part("S2")
def test_what_was_written_is_read_again_by_another_opening(place: Path, repository: Repository) -> None:
    blobs = [b"", b"x", b"y" * 100_000, os.urandom(3 << 20)]
    snapshot = saved(repository, *blobs)

    again = Repository.open(FolderStore(place), PASSWORD)

    assert [again.read("data", hashlib.sha256(blob).digest()) for blob in blobs] == blobs
    assert list(again.snapshots()) == [snapshot]
    assert again.read("tree", bytes.fromhex(again.snapshot(snapshot).tree)) == EMPTY_TREE


@pytest.mark.part("S2")
@pytest.mark.parametrize("version", ["1"])
def test_a_repository_of_restic_is_opened_and_read(place: Path, tmp_path: Path, version: str) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(b"words " * 50_000)
    restic(place, "init", "--repository-version", version)
    restic(place, "backup", str(tmp_path / "source"))

    repository = Repository.open(FolderStore(place), PASSWORD)

    assert repository.config.version == int(version)
    assert b"words " * 50_000 in [repository.read("data", blob) for blob in repository.index.blobs("data")]
    saved(repository, b"ours beside theirs")
    checked(place)


def test_a_place_has_one_repository_at_most(repository: Repository) -> None:
    with pytest.raises(Conflict, match="there is a repository"):
        Repository.create(repository.store, PASSWORD)


def test_an_empty_place_has_none() -> None:
    with pytest.raises(NotFound, match="create one first"):
        Repository.open(MemoryStore(), PASSWORD)


def test_a_wrong_password_is_told_from_damage(repository: Repository) -> None:
    with pytest.raises(Invalid, match="wrong password"):
        Repository.open(repository.store, b"guess")
    with pytest.raises(Invalid, match="cannot be empty"):
        Repository.open(repository.store, b"")


@pytest.mark.part("S2")
def test_several_passwords_open_it_until_they_are_removed(place: Path, repository: Repository) -> None:
    second = repository.add_key(b"second")

    restic(place, "snapshots", password=b"second")
    by_second = Repository.open(repository.store, b"second")
    assert {key.name: key.current for key in by_second.key_files()}[second]

    repository.remove_key(second)
    repository.remove_key(second)

    with pytest.raises(Invalid, match="wrong password"):
        Repository.open(repository.store, b"second")
    with pytest.raises(Invalid, match="opened with"):
        repository.remove_key(next(key.name for key in repository.key_files() if key.current))


def test_a_key_that_restic_added_opens_it(place: Path, repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "new").write_text("from restic\n")
    restic(place, "key", "add", "--new-password-file", str(tmp_path / "new"))

    assert Repository.open(repository.store, b"from restic").config == repository.config


def test_a_password_that_a_program_drew_is_cheap_to_use_and_one_of_a_person_is_not(place: Path) -> None:
    costs = []
    for name, is_random in (("drawn", True), ("thought of", False)):
        made = Repository.create(FolderStore(place / name), PASSWORD, is_random=is_random)
        made.add_key(b"of a person")
        restic(place / name, "check")
        files = [json.loads(file.read_bytes()) for file in (place / name / "keys").iterdir()]
        costs.append(sorted(file["N"] for file in files))

    assert costs == [[1 << 10, 1 << 15], [1 << 15, 1 << 15]]


def test_no_password_or_key_is_in_what_is_shown(repository: Repository) -> None:
    shown = repr([repository, repository.seal, repository.sealing_keys, list(repository.key_files())])

    assert "horse" not in shown
    assert repr(repository.sealing_keys.encrypt) not in shown


def test_a_key_file_cannot_make_us_work_for_ever(place: Path, repository: Repository) -> None:
    name = next(repository.key_files()).name
    file = json.loads((place / "keys" / name).read_bytes()) | {"N": 1 << 30}
    content = json.dumps(file).encode()
    (place / "keys" / name).unlink()
    (place / "keys" / hashlib.sha256(content).hexdigest()).write_bytes(content)

    with pytest.raises(Corrupt, match="too much"):
        Repository.open(repository.store, PASSWORD)


def test_a_blob_is_stored_once(repository: Repository) -> None:
    saved(repository, b"same" * 1000)
    before = {info.key for info in repository.store.walk("data/")}
    saved(repository, b"same" * 1000)

    assert {info.key for info in repository.store.walk("data/")} == before


def test_what_was_not_committed_is_no_snapshot_and_no_fault(place: Path, repository: Repository) -> None:
    with pytest.raises(KeyboardInterrupt), Writer(repository) as writer:
        writer.add("data", b"half")
        writer.flush()
        raise KeyboardInterrupt

    assert repository.snapshots() == {}
    checked(place)


@pytest.mark.part("S5")
@pytest.mark.parametrize("folder", ["config", "keys", "index", "snapshots", "data"])
def test_a_flipped_bit_is_detected_and_the_object_is_named(place: Path, repository: Repository, folder: str) -> None:
    snapshot = saved(repository, b"precious" * 1000)
    key = next(info.key for info in repository.store.walk(folder))
    content = bytearray((place / key).read_bytes())
    content[len(content) // 2 if folder != "data" else 20] ^= 4
    (place / key).write_bytes(content)

    with pytest.raises(Corrupt, match=Path(key).name):
        again = Repository.open(repository.store, PASSWORD)
        again.snapshot(snapshot)
        for kind in ("data", "tree"):
            for blob in again.index.blobs(kind):
                again.read(kind, blob)


def _part(content: bytes, start: int, end: int) -> bytes:
    return content[start:end]


def test_a_pack_says_itself_what_is_in_it(repository: Repository) -> None:
    saved(repository, b"", b"a" * 1000, os.urandom(500))

    listed = set()
    for info in repository.store.walk("data/"):
        part = partial(_part, b"".join(repository.store.read(info.key)))
        listed.update(packs.listing(info.size, part, repository.seal, info.key))

    indexed = {repository.place(kind, blob)[1] for kind in ("data", "tree") for blob in repository.index.blobs(kind)}
    assert listed == indexed
    assert all(pack_key(pack) == repository.store.stat(pack_key(pack)).key for pack in repository.index.packs())


def test_a_missing_pack_is_named(repository: Repository) -> None:
    saved(repository, b"gone")
    pack, _ = repository.place("data", hashlib.sha256(b"gone").digest())
    repository.store.delete(pack_key(pack))

    with pytest.raises(Corrupt, match=pack):
        repository.read("data", hashlib.sha256(b"gone").digest())


def test_nothing_is_committed_when_a_pack_was_not_stored() -> None:
    class Full(MemoryStore):
        def write(self, key, data, *, only_if=None):  # type: ignore[no-untyped-def]
            if key.startswith("data/"):
                raise Busy("the store is full")
            return super().write(key, data, only_if=only_if)

    repository = Repository.create(Full(), PASSWORD)

    with pytest.raises(Busy, match="full"):
        saved(repository, b"lost")

    assert list(repository.store.walk("snapshots/")) == list(repository.store.walk("index/")) == []


def test_an_index_that_is_replaced_while_it_is_read_counts_as_it_is_afterwards(tmp_path: Path) -> None:
    class Replacing(FolderStore):
        """After each of the first listings, somebody marks the packs of every index file."""

        left = 0

        def walk(self, prefix: str = ""):  # type: ignore[no-untyped-def]
            yield from list(super().walk(prefix))
            if prefix == "index/" and self.left:
                self.left -= 1
                for name, file in other.indexes.files().items():
                    other.put("index", msgspec.json.encode(IndexFile(None, packs_to_delete=file.packs or [])))
                    other.remove("index", name)

    store = Replacing(tmp_path)
    repository = Repository.create(store, PASSWORD)
    other = Repository.open(FolderStore(tmp_path), PASSWORD)
    saved(repository, b"content")
    blob = hashlib.sha256(b"content").digest()
    seen = Repository.open(store, PASSWORD)

    store.left = 1
    seen.indexes.look()

    assert not seen.has("data", blob)
    assert seen.can_read("data", blob)
    assert not seen.indexes.plain


def test_a_second_save_reads_none_of_the_index_files_that_are_known(tmp_path: Path) -> None:
    class Counting(FolderStore):
        """Remembers which index files were read."""

        read_names: list[str]

        def read(self, key, start=0, end=None):  # type: ignore[no-untyped-def]
            if key.startswith("index/"):
                self.read_names.append(key)
            return super().read(key, start, end)

    store = Counting(tmp_path)
    store.read_names = []
    repository = Repository.create(store, PASSWORD)
    others = Repository.open(FolderStore(tmp_path), PASSWORD)
    for number in range(5):
        saved(repository, b"ours %d" % number)
    store.read_names.clear()

    saved(others, b"theirs")
    new = saved(repository, b"ours", b"theirs")

    assert len(store.read_names) == 1
    assert repository.has("data", hashlib.sha256(b"theirs").digest())
    assert repository.has("data", hashlib.sha256(b"ours 3").digest())
    assert new in repository.snapshots()


class Watched(FolderStore):
    """Remembers what was asked."""

    asked: list[str]

    def walk(self, prefix: str = ""):  # type: ignore[no-untyped-def]
        self.asked.append(f"list {prefix}")
        return super().walk(prefix)

    def read(self, key, start=0, end=None):  # type: ignore[no-untyped-def]
        self.asked.append(f"read {key.partition('/')[0]}")
        return super().read(key, start, end)


def test_a_save_asks_for_the_index_no_more_often_than_it_must(tmp_path: Path) -> None:
    store = Watched(tmp_path)
    store.asked = []
    first = Repository.create(store, PASSWORD)
    saved(first, b"content")
    repository = Repository.open(store, PASSWORD)

    store.asked.clear()
    saved(repository, b"content")
    # Read while the lock was taken; then: it is still so, nothing we rely on is marked, and still nothing.
    assert sorted(store.asked) == ["list index/"] * 5 + ["list locks/"] * 2 + ["read index", "read locks"]

    store.asked.clear()
    saved(repository, b"content")
    assert sorted(store.asked) == ["list index/"] * 3 + ["list locks/"] * 2 + ["read locks"]


@pytest.mark.part("S5")
def test_a_mark_that_a_listing_hides_is_seen_all_the_same(tmp_path: Path) -> None:
    class Marking(FolderStore):
        """At a commit, a prune marks everything; the next listing has neither what it deleted nor what it wrote."""

        hidden: set[str]
        is_armed = False

        def write(self, key, data, *, only_if=None):  # type: ignore[no-untyped-def]
            info = super().write(key, data, only_if=only_if)
            if self.is_armed and key.startswith("snapshots/"):
                self.is_armed = False
                for name, file in other.indexes.files().items():
                    marks, _ = other.put("index", msgspec.json.encode(IndexFile(None, packs_to_delete=file.packs)))
                    self.hidden.add(f"index/{marks}")
                    other.remove("index", name)
            return info

        def walk(self, prefix: str = ""):  # type: ignore[no-untyped-def]
            found = [info for info in super().walk(prefix) if info.key not in self.hidden]
            if prefix == "index/":
                self.hidden = set()
            return iter(found)

    store = Marking(tmp_path)
    store.hidden = set()
    Repository.create(store, PASSWORD)
    other = Repository.open(FolderStore(tmp_path), PASSWORD)
    repository = Repository.open(store, PASSWORD)
    saved(repository, b"content")

    store.is_armed = True
    saved(repository, b"content")

    assert Repository.open(FolderStore(tmp_path), PASSWORD).has("data", hashlib.sha256(b"content").digest())


def test_what_an_interrupted_save_stored_counts_only_if_an_index_has_it(repository: Repository) -> None:
    with pytest.raises(Busy), Writer(repository) as writer:
        writer.add("data", b"half")
        writer._send("data")
        for upload in writer._uploads:
            upload.result()
        raise Busy("interrupted")

    saved(repository, b"half")

    again = Repository.open(repository.store, PASSWORD)
    assert again.read("data", hashlib.sha256(b"half").digest()) == b"half"
