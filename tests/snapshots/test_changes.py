"""Saving with somebody who knows what changed: only that is read, and what he says is looked into."""

import os
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from tests.snapshots.parts import PASSWORD, FolderStore, checked

from orlop.snapshots.chunks import BLOCK
from orlop.snapshots.nodes import Node
from orlop.snapshots.repository import Repository
from orlop.snapshots.restore import restore
from orlop.snapshots.save import About, save
from orlop.snapshots.saved import Saved

BLOCKS = 160


@pytest.fixture
def database(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    path = tmp_path / "source" / "database"
    path.write_bytes(b"SQLite format 3\0" + os.urandom(BLOCKS * BLOCK - 16))
    return path


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository.create(FolderStore(tmp_path / "repository"), PASSWORD)


def saved(repository: Repository, database: Path, parent: str | None = None, changed: object = None) -> Saved:
    about = About("data", time.time_ns())
    return save(repository, database.parent, about, parent=parent, changed=changed)  # type: ignore[arg-type]


def rewritten(database: Path, *blocks: int) -> list[tuple[int, int]]:
    ranges = [(block * BLOCK + 100, block * BLOCK + 200) for block in blocks]
    with database.open("r+b") as file:
        for start, end in ranges:
            os.pwrite(file.fileno(), os.urandom(end - start), start)
    return ranges


@pytest.mark.part("S3")
def test_a_database_is_stored_again_by_its_changed_blocks_alone(repository: Repository, database: Path) -> None:
    first = saved(repository, database)
    rewritten(database, 3, 77)

    second = saved(repository, database, first.snapshot)

    assert second.stored < 4 * BLOCK


@pytest.mark.part("S3")
def test_only_what_changed_is_read(tmp_path: Path, repository: Repository, database: Path) -> None:
    first = saved(repository, database)
    ranges = rewritten(database, 3, 77)
    asked: list[bytes] = []

    def changed(path: bytes, fd: int, old: Node) -> Iterable[tuple[int, int]]:
        asked.append(path)
        return ranges

    before = _read_bytes()
    second = saved(repository, database, first.snapshot, changed)

    assert _read_bytes() - before < 2 << 20
    assert (asked, second.problems) == ([b"database"], [])
    restore(repository, repository.snapshot(second.snapshot), tmp_path / "target", path="data")
    assert (tmp_path / "target" / "database").read_bytes() == database.read_bytes()
    checked(tmp_path / "repository")


@pytest.mark.parametrize("size", [BLOCKS * BLOCK + 5000, 31 * BLOCK + 7, 70 * BLOCK])
def test_a_file_that_grew_or_shrank_is_right_without_being_told(
    tmp_path: Path, repository: Repository, database: Path, size: int
) -> None:
    first = saved(repository, database)
    os.truncate(database, size)

    second = saved(repository, database, first.snapshot, lambda path, fd, old: [])

    assert second.problems == []
    restore(repository, repository.snapshot(second.snapshot), tmp_path / "target", path="data")
    assert (tmp_path / "target" / "database").read_bytes() == database.read_bytes()


@pytest.mark.part("S3")
def test_who_lies_about_changes_is_found_out_and_all_is_read(
    tmp_path: Path, repository: Repository, database: Path
) -> None:
    first = saved(repository, database)
    rewritten(database, *range(BLOCKS))

    second = saved(repository, database, first.snapshot, lambda path, fd, old: [])

    assert [(problem.path, problem.kind) for problem in second.problems] == [(b"database", "contradiction")]
    assert not second.is_complete
    restore(repository, repository.snapshot(second.snapshot), tmp_path / "target", path="data")
    assert (tmp_path / "target" / "database").read_bytes() == database.read_bytes()


def test_who_cannot_say_has_everything_read(repository: Repository, database: Path) -> None:
    first = saved(repository, database)
    rewritten(database, 5)

    second = saved(repository, database, first.snapshot, lambda path, fd, old: None)

    assert second.problems == []
    assert 0 < second.stored < 3 * BLOCK


def test_a_block_that_the_repository_lost_is_read_from_the_file(repository: Repository, database: Path) -> None:
    first = saved(repository, database)
    for info in repository.listed("index"):
        repository.store.delete(info.key)

    second = saved(repository, database, first.snapshot, lambda path, fd, old: [])

    assert second.stored > BLOCKS * BLOCK


def _read_bytes() -> int:
    """Bytes that this process has read from anywhere."""
    return int(Path("/proc/self/io").read_text().split()[1])
