"""Every fault is found, named, and repaired where there is a good copy."""

import json
import os
import shutil
import time
from pathlib import Path

import msgspec
import pytest
from tests.snapshots.parts import PASSWORD, FolderStore, checked

from orlop.errors import Corrupt
from orlop.snapshots.check import check
from orlop.snapshots.documents import BlobEntry, SnapshotFile
from orlop.snapshots.packs import pack_key
from orlop.snapshots.prune import prune
from orlop.snapshots.repository import Repository
from orlop.snapshots.save import About, save
from orlop.snapshots.writer import Writer


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "repository"


@pytest.fixture
def repository(tmp_path: Path, place: Path) -> Repository:
    repository = Repository.create(FolderStore(place), PASSWORD)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(os.urandom(5000))
    save(repository, tmp_path / "source", About("data", time.time_ns()))
    repository.add_key(b"another")
    return repository


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def test_a_sound_repository_has_no_faults(repository: Repository) -> None:
    seen = []

    assert check(repository, read_data=True, progress=seen.append) == []
    assert len(seen) == len(repository.listed("data"))
    assert repository.listed("locks") == []


@pytest.mark.part("S5")
@pytest.mark.parametrize("folder", ["keys", "index", "snapshots", "data"])
@pytest.mark.parametrize("how", ["damaged", "cut", "empty"])
def test_a_bad_object_is_named_and_repaired_from_a_copy(
    tmp_path: Path, place: Path, repository: Repository, folder: str, how: str
) -> None:
    shutil.copytree(place, tmp_path / "copy")
    current = next(key.name for key in repository.key_files() if key.current)
    for info in repository.listed(folder):
        path = place / info.key
        if path.name == current:
            continue
        if how == "damaged":
            damage(path)
        else:
            os.truncate(path, info.size // 2 if how == "cut" else 0)

    again = Repository.open(repository.store, PASSWORD)
    faults = check(again, read_data=True)
    mending = check(Repository.open(repository.store, PASSWORD), read_data=True, copy=FolderStore(tmp_path / "copy"))

    bad = {info.key for info in repository.listed(folder)} - {f"keys/{current}"}
    assert bad <= {fault.key for fault in faults}
    assert not any(fault.repaired for fault in faults)
    assert {fault.key for fault in mending if fault.repaired} == bad
    assert check(Repository.open(repository.store, PASSWORD), read_data=True) == []
    assert not [f for f in place.rglob("*") if f.is_file() and f.read_bytes() != _copy(f, place, tmp_path).read_bytes()]


@pytest.mark.part("S5")
def test_a_missing_pack_is_named_without_reading_the_others(
    tmp_path: Path, place: Path, repository: Repository
) -> None:
    shutil.copytree(place, tmp_path / "copy")
    lost = pack_key(repository.place("data", next(iter(repository.index.blobs("data"))))[0])
    repository.store.delete(lost)

    assert [(fault.key, fault.reason) for fault in check(repository)] == [(lost, "it is missing")]
    assert [fault.repaired for fault in check(repository, copy=FolderStore(tmp_path / "copy"))] == [True]
    checked(place)


def test_a_copy_that_is_as_bad_repairs_nothing(tmp_path: Path, place: Path, repository: Repository) -> None:
    damage(place / repository.listed("snapshots")[0].key)
    shutil.copytree(place, tmp_path / "copy")

    assert [fault.repaired for fault in check(repository, copy=FolderStore(tmp_path / "copy"))] == [False]


def test_a_lost_index_is_seen_by_the_trees_that_need_it(repository: Repository) -> None:
    (snapshot,) = repository.snapshots()
    for info in repository.listed("index"):
        repository.store.delete(info.key)

    assert {fault.key for fault in check(Repository.open(repository.store, PASSWORD))} == {f"snapshots/{snapshot}"}


def test_a_blob_that_only_the_index_has_in_a_pack_is_seen(repository: Repository) -> None:
    ((name, file),) = repository.indexes.files().items()
    pack = next(pack for pack in file.packs or () if pack.blobs)
    pack.blobs = [*(pack.blobs or ()), BlobEntry("ab" * 32, "data", 0, 40)]
    repository.put("index", msgspec.json.encode(file))
    repository.remove("index", name)

    again = Repository.open(repository.store, PASSWORD)
    assert check(again) == []
    (fault,) = check(again, read_data=True)
    assert (fault.key, fault.reason) == (pack_key(pack.id), "the index lists 1 blobs in it that it does not have")


@pytest.mark.parametrize("content", ["ab", "xy" * 32])
def test_a_tree_that_refers_to_what_is_no_id_is_named_and_nothing_is_pruned(
    repository: Repository, content: str
) -> None:
    entry = {"name": "file", "type": "file", "mode": 420, "size": 1, "content": [content]}
    with Writer(repository) as writer:
        tree = writer.add("tree", json.dumps({"nodes": [entry]}).encode() + b"\n").hex()
        snapshot = writer.commit(SnapshotFile(time="2026-11-23T05:41:23Z", tree=tree, paths=["/data"]))

    (fault,) = check(Repository.open(repository.store, PASSWORD))
    assert fault.key == f"snapshots/{snapshot}"
    assert tree in fault.reason
    with pytest.raises(Corrupt, match=tree):
        prune(repository, grace=0)


def _copy(file: Path, place: Path, tmp_path: Path) -> Path:
    return tmp_path / "copy" / file.relative_to(place)
