"""A snapshot by paths and ranges, and what a hostile one may show."""

import os
import random
import time
from pathlib import Path

import pytest
from tests.snapshots.parts import PASSWORD, FolderStore
from tests.snapshots.test_restore import file, hostile

from orlop.errors import Corrupt, NotFound
from orlop.snapshots.nodes import Node
from orlop.snapshots.repository import Repository
from orlop.snapshots.restore import find
from orlop.snapshots.save import About, save
from orlop.snapshots.treereader import TreeReader
from orlop.snapshots.view import View


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository.create(FolderStore(tmp_path / "repository"), PASSWORD)


def test_every_range_of_a_file_is_what_it_was(tmp_path: Path, repository: Repository) -> None:
    content = os.urandom(6_000_000)
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").write_bytes(content)
    (tmp_path / "source/empty").touch()
    snapshot = repository.snapshot(save(repository, tmp_path / "source", About("data", time.time_ns())).snapshot)

    view = View(repository, find(TreeReader(repository), snapshot, "data"))
    opened, chance = view.open(view.node(b"/file")), random.Random(7)

    assert len(opened.blobs) > 2
    for offset in (0, 5_999_999, 6_000_000, *(chance.randrange(6_000_000) for _ in range(50))):
        size = chance.randrange(1, 2_000_000)
        assert opened.read(size, offset) == content[offset : offset + size]
    assert view.open(view.node(b"/empty")).read(10, 0) == b""
    with pytest.raises(NotFound):
        view.node(b"/file/below")


@pytest.mark.parametrize("names", [["../evil"], [".."], ["a/b"], [""], ["twice", "twice"]])
def test_a_name_that_could_mean_another_place_is_never_shown(repository: Repository, names: list[str]) -> None:
    snapshot = hostile(repository, *(file(repository, name) for name in names))

    view = View(repository, Node("", "dir", 0, 0, None, subtree=snapshot.tree))

    with pytest.raises(Corrupt):
        view.entries(view.node(b"/"))
