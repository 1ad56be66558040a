"""Folders into a repository and out of it, beside stock restic in both directions."""

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.snapshots.parts import PASSWORD, FolderStore, checked, everything, restic, zoo

from orlop.errors import Corrupt, Invalid, Unavailable
from orlop.snapshots import nodes, parent
from orlop.snapshots.nodes import Node
from orlop.snapshots.repository import Repository
from orlop.snapshots.restore import restore
from orlop.snapshots.save import About, save
from orlop.snapshots.saved import INCOMPLETE, Saved
from orlop.snapshots.treereader import TreeReader


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "repository"


@pytest.fixture
def repository(place: Path) -> Repository:
    return Repository.create(FolderStore(place), PASSWORD)


def saved(repository: Repository, folder: Path, parent: str | None = None, **more: object) -> Saved:
    return save(repository, folder, About("data", time.time_ns()), parent=parent, **more)


def settled(folder: Path) -> Path:
    """The folder, when the kernel's clock has gone on since it was written."""
    time.sleep(0.05)
    return folder


def back(repository: Repository, snapshot: str, target: Path, **more: object) -> Path:
    done = restore(repository, repository.snapshot(snapshot), target, path="data", **more)
    assert done.problems == []
    return target


@pytest.mark.part("S2", "S3")
def test_a_folder_with_everything_in_it_comes_back_equal(tmp_path: Path, place: Path, repository: Repository) -> None:
    source = zoo(tmp_path / "source")

    done = saved(repository, source)

    assert done.problems == []
    assert everything(back(repository, done.snapshot, tmp_path / "target")) == everything(source)
    assert (tmp_path / "target" / "sparse").stat().st_blocks * 512 < 1 << 20
    checked(place)


@pytest.mark.part("S2")
def test_restic_restores_what_was_saved(tmp_path: Path, place: Path, repository: Repository) -> None:
    source = zoo(tmp_path / "source")
    os.unlink(source / "dangling")  # restic 0.14 knows link targets in UTF-8 only
    done = saved(repository, source)

    restic(place, "restore", done.snapshot, "--target", str(tmp_path / "target"))

    listed = restic(place, "ls", done.snapshot)
    assert "/data/deep/er/file" in listed
    # restic 0.14 sets times of links and folders to the microsecond and the file's to the nanosecond.
    assert _rounded(everything(tmp_path / "target" / "data")) == _rounded(everything(source))


@pytest.mark.part("S3")
def test_what_restic_saved_is_restored(tmp_path: Path, place: Path) -> None:
    source = zoo(tmp_path / "source")
    os.unlink(source / "dangling")
    restic(place, "init", "--repository-version", "2")
    subprocess.run(
        ["restic", "-r", str(place), "backup", "--quiet", "."],
        cwd=source, env={**os.environ, "RESTIC_PASSWORD": PASSWORD.decode()}, check=True, timeout=60,
    )  # fmt: skip
    repository = Repository.open(FolderStore(place), PASSWORD)
    (snapshot,) = repository.snapshots().values()

    done = restore(repository, snapshot, tmp_path / "target")

    assert done.problems == []
    there, here = everything(tmp_path / "target"), everything(source)
    del there[b"."], here[b"."]  # a snapshot of "." says nothing of the folder itself
    assert there == here


@pytest.mark.part("S2")
def test_restic_mounts_what_was_saved(tmp_path: Path, place: Path, repository: Repository) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_text("seen through FUSE")
    saved(repository, tmp_path / "source")
    point = tmp_path / "mounted"
    point.mkdir()
    mounted = subprocess.Popen(
        ["restic", "-r", str(place), "--no-cache", "mount", str(point)],
        env={**os.environ, "RESTIC_PASSWORD": PASSWORD.decode()}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        file = point / "snapshots" / "latest" / "data" / "file"
        deadline = time.monotonic() + 30
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.1)

        assert file.read_text() == "seen through FUSE"
    finally:
        subprocess.run(["umount", "-l", str(point)], check=False)
        mounted.terminate()
        mounted.wait(20)


@pytest.mark.part("S3")
def test_unchanged_files_are_not_read_again(tmp_path: Path, repository: Repository) -> None:
    source = settled(zoo(tmp_path / "source"))
    first = saved(repository, source)
    (source / "deep" / "new").write_text("new")

    second = saved(repository, source, first.snapshot)

    assert (second.files, second.unchanged) == (first.files + 1, first.files)
    assert second.stored < 10_000
    assert everything(back(repository, second.snapshot, tmp_path / "target")) == everything(source)


def test_a_folder_in_which_nothing_changed_gives_the_same_tree(tmp_path: Path, repository: Repository) -> None:
    source = settled(zoo(tmp_path / "source"))
    first = saved(repository, source)

    second = saved(repository, source, first.snapshot)

    assert second.stored == 0
    assert repository.snapshot(second.snapshot).tree == repository.snapshot(first.snapshot).tree
    assert repository.snapshot(second.snapshot).parent == first.snapshot


def test_a_file_whose_modification_time_was_put_back_is_read_again(tmp_path: Path, repository: Repository) -> None:
    source = settled(zoo(tmp_path / "source"))
    first = saved(repository, source)
    before = (source / "empty folder").stat(), (source / "deep" / "er" / "file").stat()
    (source / "deep" / "er" / "file").write_text("DEEP")
    os.utime(source / "deep" / "er" / "file", ns=(before[1].st_atime_ns, before[1].st_mtime_ns))

    second = saved(repository, source, first.snapshot)

    assert (back(repository, second.snapshot, tmp_path / "target") / "deep" / "er" / "file").read_text() == "DEEP"


def test_a_change_in_the_tick_of_the_save_before_is_seen(tmp_path: Path, repository: Repository) -> None:
    (tmp_path / "source").mkdir()
    file = tmp_path / "source" / "file"
    file.write_text("one")
    first = saved(repository, tmp_path / "source")
    # What a clock of the kernel that stood still would have made of a change: the same stamps, another content.
    second = saved(repository, tmp_path / "source", first.snapshot)

    assert second.unchanged == 0


def test_what_a_folder_says_of_itself_is_saved_anew_when_nothing_in_it_changed(
    tmp_path: Path, repository: Repository
) -> None:
    source = settled(zoo(tmp_path / "source"))
    first = saved(repository, source)
    (source / "deep").chmod(0o2750)
    os.setxattr(source / "deep" / "er", "user.colour", b"green")

    second = saved(repository, source, first.snapshot)

    assert second.unchanged == first.files
    assert everything(back(repository, second.snapshot, tmp_path / "target")) == everything(source)


def test_a_folder_that_changed_in_the_tick_of_the_save_before_is_saved_anew(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source" / "folder").mkdir(parents=True)
    first = saved(repository, tmp_path / "source")
    (tmp_path / "source" / "folder").chmod(0o700)
    # A clock of the kernel that stood still: all stamps are as they were.
    monkeypatch.setattr(parent, "is_unchanged", lambda *_: True)

    second = saved(repository, tmp_path / "source", first.snapshot)

    assert (back(repository, second.snapshot, tmp_path / "target") / "folder").stat().st_mode & 0o777 == 0o700


def test_a_folder_whose_list_is_damaged_is_read_again(tmp_path: Path, repository: Repository) -> None:
    source = settled(zoo(tmp_path / "source"))
    first = saved(repository, source)

    class Damaged(TreeReader):
        def nodes(self, tree: str) -> list[Node]:
            if tree != repository.snapshot(first.snapshot).tree:
                raise Corrupt(f"tree {tree!r} is damaged")
            return super().nodes(tree)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(parent, "TreeReader", Damaged)
        second = saved(repository, source, first.snapshot)

    assert (second.files, second.unchanged) == (first.files, 0)
    assert everything(back(repository, second.snapshot, tmp_path / "target")) == everything(source)


@pytest.fixture
def no_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    """No unchanged file is read again by chance."""
    monkeypatch.setattr(parent, "_AUDIT", 0)


@pytest.mark.usefixtures("no_audit")
def test_clones_that_nobody_writes_to_are_believed_however_young_they_are(
    tmp_path: Path, repository: Repository
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_text("one")
    (tmp_path / "source" / "large").write_bytes(os.urandom(1 << 20))
    first = saved(repository, tmp_path / "source")

    second = saved(repository, tmp_path / "source", first.snapshot, clones=True)

    assert second.unchanged == 2


@pytest.mark.usefixtures("no_audit")
def test_names_of_any_bytes_are_in_the_order_of_their_bytes(
    tmp_path: Path, place: Path, repository: Repository
) -> None:
    # As text the last two are the other way round, and one is no text at all.
    names = [b"a", b"z", "é".encode(), "\uffee".encode(), "\U0001f40b".encode(), b"\xff"]
    (tmp_path / "source").mkdir()
    for name in names:
        (tmp_path / "source" / os.fsdecode(name)).write_bytes(name)
    first = saved(repository, settled(tmp_path / "source"))

    second = saved(repository, tmp_path / "source", first.snapshot)

    assert second.unchanged == len(names)
    trees = TreeReader(repository)
    (top,) = trees.nodes(repository.snapshot(second.snapshot).tree)
    assert [nodes.name_of(node) for node in trees.nodes(top.subtree or "")] == names
    checked(place)


def test_names_are_known_again_whatever_python_takes_for_the_encoding_of_names(tmp_path: Path, place: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "é").write_text("one")
    Repository.create(FolderStore(place), PASSWORD)
    settled(tmp_path / "source")
    program = f"""
import sys, time
from pathlib import Path
from tests.snapshots.parts import PASSWORD, FolderStore
from orlop.snapshots import parent
from orlop.snapshots.repository import Repository
from orlop.snapshots.save import About, save
parent._AUDIT = 0
repository = Repository.open(FolderStore(Path({str(place)!r})), PASSWORD)
last = next(iter(repository.snapshots()), None)
done = save(repository, Path({str(tmp_path / "source")!r}), About("data", time.time_ns()), parent=last)
print(sys.getfilesystemencoding(), done.unchanged)
"""
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

    said = [
        subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True).stdout
        for env in (None, ascii_only)
    ]

    assert said == ["utf-8 0\n", "ascii 1\n"]


def test_many_small_files_and_few_processes(tmp_path: Path, place: Path, repository: Repository) -> None:
    source = tmp_path / "source"
    for number in range(1500):
        (source / str(number % 7)).mkdir(parents=True, exist_ok=True)
        (source / str(number % 7) / str(number)).write_text(f"{number // 2} " * 50)

    seen: list[int] = []
    done = saved(repository, source, processes=2, progress=lambda progress: seen.append(progress.files))

    assert (done.files, seen[-1]) == (1500, 1500)
    assert len(list(repository.index.blobs("data"))) == 750
    assert everything(back(repository, done.snapshot, tmp_path / "target", processes=2)) == everything(source)
    checked(place)


@pytest.mark.part("S3")
def test_one_file_or_one_folder_is_restored_alone(tmp_path: Path, repository: Repository) -> None:
    source = zoo(tmp_path / "source")
    done = saved(repository, source)
    snapshot = repository.snapshot(done.snapshot)

    restore(repository, snapshot, tmp_path / "one", path="data/deep/er/file")
    restore(repository, snapshot, tmp_path / "some", path="data/deep")

    assert [path.name for path in (tmp_path / "one").iterdir()] == ["file"]
    assert sorted(path.name for path in (tmp_path / "some").iterdir()) == ["er", "setuid", "twin"]
    with pytest.raises(Exception, match="the snapshot has no 'data/none'"):
        restore(repository, snapshot, tmp_path / "none", path="data/none")


def test_files_that_vanish_or_change_meanwhile_are_told(tmp_path: Path, repository: Repository) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "steady").write_bytes(os.urandom(2 << 20))
    (source / "growing").write_bytes(os.urandom(6 << 20))
    (source / "moving").mkdir()
    (source / "moving" / "file").write_text("x")
    ended = threading.Event()

    def grow() -> None:
        with (source / "growing").open("ab", buffering=0) as file:
            while not ended.is_set():
                file.write(b"more")

    def remove(progress: object) -> None:
        shutil.rmtree(source / "moving", ignore_errors=True)

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        done = saved(repository, source, progress=remove)
    finally:
        ended.set()
        writer.join()

    assert [(problem.path, problem.kind) for problem in sorted(done.problems, key=lambda p: p.path)] == [
        (b"growing", "changed"),
        (b"moving", "vanished"),
    ]
    assert done.is_complete
    assert (back(repository, done.snapshot, tmp_path / "target") / "growing").stat().st_size >= 6 << 20


def test_what_cannot_be_read_is_told_and_the_snapshot_is_marked(tmp_path: Path, repository: Repository) -> None:
    # An encrypted or failing filesystem answers with an error: here a FUSE file that has none to read from.
    source = tmp_path / "source"
    source.mkdir()
    (source / "good").write_text("good")
    os.symlink("/proc/self/mem", source / "link")
    (source / "bad").mkdir()
    subprocess.run(["mount", "--bind", f"/proc/{os.getpid()}/task", str(source / "bad")], check=True)
    try:
        done = saved(repository, source)
    finally:
        subprocess.run(["umount", str(source / "bad")], check=True)

    assert not done.is_complete
    assert {problem.kind for problem in done.problems} <= {"unreadable", "vanished", "changed"}
    assert repository.snapshot(done.snapshot).tags == [INCOMPLETE]


def test_a_folder_that_is_not_there_cannot_be_saved(tmp_path: Path, repository: Repository) -> None:
    with pytest.raises((Unavailable, FileNotFoundError)):
        saved(repository, tmp_path / "none")
    with pytest.raises(Invalid, match="cannot be the name"):
        save(repository, tmp_path, About("../up", 0))


def _rounded(found: dict[bytes, tuple[object, ...]]) -> dict[bytes, tuple[object, ...]]:
    return {path: (*one[:3], one[3] // 1000, *one[4:]) for path, one in found.items()}  # type: ignore[operator]
