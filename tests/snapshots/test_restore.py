"""Restoring onto what is there, again after a kill, from damaged repositories and from hostile ones."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.snapshots.parts import PASSWORD, FolderStore, everything, zoo

from orlop.errors import Corrupt, Unavailable
from orlop.snapshots import nodes
from orlop.snapshots.documents import SnapshotFile
from orlop.snapshots.nodes import Attribute, Node
from orlop.snapshots.packs import pack_key
from orlop.snapshots.placeholders import ATTRIBUTE
from orlop.snapshots.repository import Repository
from orlop.snapshots.restore import Restored, restore
from orlop.snapshots.save import About, save
from orlop.snapshots.writer import Writer


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository.create(FolderStore(tmp_path / "repository"), PASSWORD)


def saved(repository: Repository, folder: Path) -> SnapshotFile:
    return repository.snapshot(save(repository, folder, About("data", time.time_ns())).snapshot)


@pytest.mark.part("S1", "S3")
def test_an_existing_folder_becomes_equal(tmp_path: Path, repository: Repository) -> None:
    source = zoo(tmp_path / "source")
    before = everything(source)
    snapshot = saved(repository, source)
    (source / "deep" / "er" / "file").write_text("changed since")
    (source / "large").write_bytes(b"small now")
    (source / "plain").unlink()
    (source / "plain").mkdir()
    (source / "plain" / "in the way").touch()
    (source / "empty folder").rmdir()
    (source / "empty folder").symlink_to("/")
    (source / "new").mkdir()
    (source / "new" / "file").touch()

    done = restore(repository, snapshot, source, path="data", delete=True)

    assert done.problems == []
    assert done.unchanged > 5
    assert done.removed == 1
    assert everything(source) == before


def test_without_delete_what_is_new_stays(tmp_path: Path, repository: Repository) -> None:
    source = zoo(tmp_path / "source")
    snapshot = saved(repository, source)
    (source / "new").write_text("new")

    restore(repository, snapshot, source, path="data")

    assert (source / "new").read_text() == "new"


def test_a_restore_that_was_killed_can_be_repeated(tmp_path: Path, repository: Repository) -> None:
    source = tmp_path / "source"
    for number in range(1200):
        (source / str(number % 5)).mkdir(parents=True, exist_ok=True)
        (source / str(number % 5) / str(number)).write_bytes(os.urandom(3000))
    snapshot = saved(repository, source)
    (name,) = repository.snapshots()
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, '.')\n"
        "from tests.snapshots.parts import *\n"
        "from orlop.snapshots.repository import Repository; from orlop.snapshots.restore import restore\n"
        f"r = Repository.open(FolderStore(Path({str(tmp_path / 'repository')!r})), PASSWORD)\n"
        f"restore(r, r.snapshot({name!r}), Path({str(tmp_path / 'target')!r}), path='data')\n"
    )
    for _ in range(3):
        run = subprocess.Popen([sys.executable, "-c", program])
        time.sleep(random.uniform(0.2, 0.6))
        run.send_signal(signal.SIGKILL)
        run.wait()

    restore(repository, snapshot, tmp_path / "target", path="data")

    assert everything(tmp_path / "target") == everything(source)


@pytest.mark.part("S5")
def test_a_damaged_file_is_named_left_out_and_the_rest_is_restored(tmp_path: Path, repository: Repository) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_bytes(os.urandom(1000))
    (source / "b").write_bytes(os.urandom(1000))
    (source / "large").write_bytes(os.urandom(2 << 20))
    snapshot = saved(repository, source)
    node = next(one for one in _nodes(repository, snapshot) if one.name == "a")
    pack, blob = repository.place("data", bytes.fromhex((node.content or [""])[0]))
    path = tmp_path / "repository" / pack_key(pack)
    content = bytearray(path.read_bytes())
    content[blob.offset + 20] ^= 1
    path.write_bytes(content)

    done = restore(repository, snapshot, tmp_path / "target", path="data")

    assert [(problem.path, problem.kind) for problem in done.problems] == [(b"a", "damaged")]
    assert blob.id.hex() in done.problems[0].reason
    assert pack in done.problems[0].reason
    assert sorted(path.name for path in (tmp_path / "target").iterdir()) == ["b", "large"]


def test_a_missing_pack_leaves_its_files_out(tmp_path: Path, repository: Repository) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "large").write_bytes(os.urandom(2 << 20))
    snapshot = saved(repository, source)
    for blob in repository.index.blobs("data"):
        repository.store.delete(pack_key(repository.place("data", blob)[0]))

    done = restore(repository, snapshot, tmp_path / "target", path="data")

    assert [(problem.path, problem.kind) for problem in done.problems] == [(b"large", "damaged")]
    assert list((tmp_path / "target").iterdir()) == []


@pytest.mark.part("S5")
def test_a_store_that_fails_ends_the_restore_and_no_file_is_left_half_made(tmp_path: Path) -> None:
    store = Failing(tmp_path / "repository")
    repository, source = Repository.create(store, PASSWORD), tmp_path / "source"
    source.mkdir()
    for number in range(12):
        (source / f"large {number}").write_bytes(os.urandom(6 << 20))
    snapshot = saved(repository, source)
    store.fails_after = 9

    with pytest.raises(Unavailable, match="gone away"):
        restore(repository, snapshot, tmp_path / "target", path="data")

    made = sorted(path.name for path in (tmp_path / "target").iterdir())
    assert len(made) < 12
    for name in made:
        assert (tmp_path / "target" / name).read_bytes() == (source / name).read_bytes()
    store.fails_after = 1 << 30
    assert restore(repository, snapshot, tmp_path / "target", path="data").unchanged == 0
    assert everything(tmp_path / "target") == everything(source)


class Failing(FolderStore):
    """From a certain answer of more than a megabyte on, it does not answer any more."""

    fails_after = 1 << 30

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        if end is not None and end - start > 1 << 20 and key.startswith("data/"):
            self.fails_after -= 1
            if self.fails_after < 0:
                raise Unavailable("the store has gone away")
        return super().read(key, start, end)


@pytest.mark.part("S3")
def test_large_files_that_are_made_at_the_same_time_are_each_right(tmp_path: Path, repository: Repository) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(30):
        path, size = source / f"large {number}", random.randrange(600 << 10, 9 << 20)
        path.write_bytes(os.urandom(size // 2) + bytes(size // 4) + os.urandom(size // 4))
        os.utime(path, (number, number))
    snapshot = saved(repository, source)

    assert restore(repository, snapshot, tmp_path / "target", path="data").problems == []

    assert everything(tmp_path / "target") == everything(source)


class Counting(FolderStore):
    """Counts what is read of packs."""

    reads = 0

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        self.reads += key.startswith("data/")
        return super().read(key, start, end)


@pytest.mark.part("S3")
def test_of_the_holes_of_a_large_file_nothing_is_fetched_and_they_stay(tmp_path: Path, repository: Repository) -> None:
    size, content, places = 64 << 30, os.urandom(100_000), (5 << 20, 33 << 30, (64 << 30) - 100_000)
    (tmp_path / "source").mkdir()
    with (tmp_path / "source/sparse").open("wb") as sparse:
        for place in places:
            sparse.seek(place)
            sparse.write(content)
    (tmp_path / "source/nothing").touch()
    os.truncate(tmp_path / "source/nothing", size)
    snapshot = saved(repository, tmp_path / "source")
    store = Counting(tmp_path / "repository")

    again = Repository.open(store, PASSWORD)
    assert restore(again, snapshot, tmp_path / "target", path="data").problems == []

    made = [tmp_path / "target" / name for name in ("sparse", "nothing")]
    assert [path.stat().st_size for path in made] == [size, size]
    assert [path.stat().st_blocks * 512 < 2 << 20 for path in made] == [True, True]
    with made[0].open("rb") as file:
        assert [os.pread(file.fileno(), 100_001, place)[:100_000] == content for place in places] == [True, True, True]
    assert store.reads < 20


def hostile(repository: Repository, *entries: Node) -> SnapshotFile:
    with Writer(repository) as writer:
        tree = writer.add("tree", nodes.tree([nodes.encode(entry) for entry in entries]))
        return repository.snapshot(writer.commit(SnapshotFile("2026-11-22T05:41:23Z", tree.hex(), ["/data"])))


def file(repository: Repository, name: str, **more: object) -> Node:
    with Writer(repository) as writer:
        blob = writer.add("data", b"evil")
        writer.flush()
    return Node(name, "file", 0, 0, [blob.hex()], mode=0o644, size=4, mtime="2026-11-22T05:41:23Z", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["../evil", "..", "/etc/evil", "a/b", "a\\x2fb", "", "a\\x00"])
def test_a_name_that_leads_out_is_refused(tmp_path: Path, repository: Repository, name: str) -> None:
    snapshot = hostile(repository, file(repository, name))

    with pytest.raises(Corrupt, match="cannot be the name of a file"):
        restore(repository, snapshot, tmp_path / "target")

    assert list((tmp_path / "target").iterdir()) == []
    assert not (tmp_path / "evil").exists()


def test_a_link_and_a_folder_of_one_name_are_refused(tmp_path: Path, repository: Repository) -> None:
    (tmp_path / "outside").mkdir()
    below = hostile(repository, file(repository, "evil")).tree
    link = Node("x", "symlink", 0, 0, None, linktarget=str(tmp_path / "outside"), mtime="2026-11-22T05:41:23Z")
    folder = Node("x", "dir", 0, 0, None, subtree=below, mtime="2026-11-22T05:41:23Z")
    snapshot = hostile(repository, link, folder)

    with pytest.raises(Corrupt, match="twice"):
        restore(repository, snapshot, tmp_path / "target")

    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_links_in_an_existing_target_are_not_followed(tmp_path: Path, repository: Repository, kind: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("mine")
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "x").symlink_to(outside / "file" if kind == "file" else outside)
    below = hostile(repository, file(repository, "file")).tree
    folder = Node("x", "dir", 0, 0, None, subtree=below, mode=0o755, mtime="2026-11-22T05:41:23Z")
    snapshot = hostile(repository, folder if kind == "folder" else file(repository, "x"))

    done = restore(repository, snapshot, tmp_path / "target", delete=True)

    assert done.problems == []
    assert (outside / "file").read_text() == "mine"
    assert not (tmp_path / "target" / "x").is_symlink()


def test_hard_links_lead_nowhere_else(tmp_path: Path, repository: Repository) -> None:
    first, second = (file(repository, name, inode=9, links=2, device_id=1) for name in ("a", "b"))
    second.content = []
    second.size = 0

    done: Restored = restore(repository, hostile(repository, first, second), tmp_path / "target")

    assert done.problems == []
    assert ((tmp_path / "target" / "a").read_bytes(), (tmp_path / "target" / "b").read_bytes()) == (b"evil", b"")


def test_what_attributes_tell_us_of_a_file_is_neither_saved_nor_restored(
    tmp_path: Path, repository: Repository
) -> None:
    # A placeholder's copy, made with all attributes, is a file as any other; and a snapshot may not make placeholders.
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "copy").write_bytes(b"x")
    os.setxattr(tmp_path / "source" / "copy", ATTRIBUTE, b"told")
    os.setxattr(tmp_path / "source" / "copy", "user.colour", b"green")
    lies = hostile(repository, file(repository, "evil", extended_attributes=[Attribute(ATTRIBUTE, b"told")]))

    restore(repository, saved(repository, tmp_path / "source"), tmp_path / "target", path="data")
    restore(repository, lies, tmp_path / "target")

    assert os.listxattr(tmp_path / "target" / "copy") == ["user.colour"]
    assert os.listxattr(tmp_path / "target" / "evil") == []


def test_a_size_that_lies_is_told(tmp_path: Path, repository: Repository) -> None:
    node = file(repository, "big")
    node.size = 1 << 60

    done = restore(repository, hostile(repository, node), tmp_path / "target")

    assert [problem.kind for problem in done.problems] == ["damaged"]
    assert (tmp_path / "target" / "big").read_bytes() == b"evil"


@pytest.mark.parametrize(
    ("node", "kind"),
    [
        (Node("x", "file", 0, 0, ["no id"], size=1), "damaged"),
        (Node("x", "file", 0, 0, ["00" * 32], size=1), "damaged"),
        (Node("x", "irregular", 0, 0, None), "unwritable"),
        (Node("x", "symlink", 0, 0, None, linktarget="a\0b"), "unwritable"),
        (Node("x", "chardev", -1, 0, None, device=-5), "damaged"),
        (Node("x", "file", 0, 0, [], size=1 << 70), "damaged"),
        (Node("x", "fifo", 0, 0, None, mtime="never"), "unwritable"),
    ],
)
def test_a_node_that_makes_no_sense_is_told_and_the_rest_restored(
    tmp_path: Path, repository: Repository, node: Node, kind: str
) -> None:
    snapshot = hostile(repository, file(repository, "good"), node)

    done = restore(repository, snapshot, tmp_path / "target")

    assert [problem.kind for problem in done.problems] == [kind]
    assert (tmp_path / "target" / "good").read_bytes() == b"evil"


def test_a_tree_that_is_no_tree_is_named(tmp_path: Path, repository: Repository) -> None:
    with Writer(repository) as writer:
        tree = writer.add("tree", b"[" * 100_000)
        snapshot = repository.snapshot(writer.commit(SnapshotFile("2026-11-22T05:41:23Z", tree.hex())))

    with pytest.raises(Corrupt, match=tree.hex()):
        restore(repository, snapshot, tmp_path / "target")


def _nodes(repository: Repository, snapshot: SnapshotFile) -> list[Node]:
    (top,) = nodes.parsed(repository.read("tree", bytes.fromhex(snapshot.tree)), "tree")
    return nodes.parsed(repository.read("tree", bytes.fromhex(top.subtree or "")), "tree")
