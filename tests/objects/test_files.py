"""A folder of objects: the contract, and what only a folder has: kills, links, foreign files, disks that are full."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from orlop.errors import Conflict, Invalid, NoSpace, NotFound, Unavailable
from orlop.objects.files import FileStore
from orlop.objects.store import ABSENT, ObjectStore
from orlop.testing.stores import ObjectStoreContract


class TestFileStore(ObjectStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        return FileStore(tmp_path)


class TestFileStoreOnFuse(ObjectStoreContract):
    """Where a file must have a name, and the filesystem is a program's."""

    examples = 10

    @pytest.fixture
    def store(self, bound: Path) -> ObjectStore:
        return FileStore(bound)


@pytest.fixture
def bound(tmp_path: Path) -> Iterator[Path]:
    """A folder on bindfs, which has no files without a name."""
    real, seen = tmp_path / "real", tmp_path / "seen"
    real.mkdir()
    seen.mkdir()
    subprocess.run(["bindfs", real, seen], check=True, timeout=20)
    try:
        yield seen
    finally:
        subprocess.run(["umount", "-l", seen], check=True, timeout=20)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    disk = tmp_path / "small"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", disk], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


# Writes an object again and again, says so after each time, and dies at a step or when it is killed.
_CHILD = """
import hashlib, json, os, signal, sys
from pathlib import Path
from orlop.objects.files import FileStore

folder, fatal, keys, size = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4])
number = int(sys.argv[5])

def step(name):
    if name == fatal and number > int(sys.argv[5]):
        os.kill(os.getpid(), signal.SIGKILL)

store = FileStore(folder, step)
while True:
    key = keys[number % len(keys)]
    body = b"%d " % number + b"x" * (number * 7919 % size)
    if fatal == "unlinked":
        store.write(key, [body])
        number += 1
        store.delete(key)
    else:
        store.write(key, [hashlib.sha256(body).hexdigest().encode(), b" ", body])
    print(number, flush=True)
    number += 1
"""


def _start(folder: Path, fatal: str, keys: list[str], size: int = 10, number: int = 0) -> "subprocess.Popen[str]":
    argv = [sys.executable, "-c", _CHILD, str(folder), fatal, json.dumps(keys), str(size), str(number)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def _number(store: ObjectStore, key: str) -> int:
    digest, _, body = b"".join(store.read(key)).partition(b" ")
    assert hashlib.sha256(body).hexdigest().encode() == digest
    return int(body.split()[0])


def _hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / ".orlop").iterdir() if path.name != "lock")


@pytest.mark.parametrize("fatal", ["filled", "hidden", "named"])
@pytest.mark.parametrize("where", ["tmp_path", "bound"])
def test_a_kill_at_any_step_leaves_the_old_object_or_the_new_one(
    where: str, fatal: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(where)
    child = _start(folder, fatal, ["a/b"])

    acknowledged = child.communicate(timeout=60)[0].split()

    assert child.returncode == -signal.SIGKILL
    assert acknowledged == ["0"]
    store = FileStore(folder)
    assert _number(store, "a/b") == (1 if fatal == "named" else 0)
    assert [info.key for info in store.walk()] == ["a/b"]
    store.write("a/b", [b"next"], only_if=store.stat("a/b").version)
    assert b"".join(store.read("a/b")) == b"next"
    assert _hidden(folder) == []


def test_a_kill_in_a_delete_leaves_nothing_half(tmp_path: Path) -> None:
    child = _start(tmp_path, "unlinked", ["a/b"])

    child.communicate(timeout=60)

    store = FileStore(tmp_path)
    assert child.returncode == -signal.SIGKILL
    assert list(store.walk()) == []
    store.write("a/b", [b"next"], only_if=ABSENT)


@pytest.mark.parametrize("where", ["tmp_path", "bound"])
def test_kills_at_random_times_lose_nothing_that_was_acknowledged(where: str, request: pytest.FixtureRequest) -> None:
    folder, chance = request.getfixturevalue(where), random.Random(4711)
    store, keys, number = FileStore(folder), ["a", "b/c", "b/d", "e/f/g"], 0

    for _ in range(8):
        child = _start(folder, "", keys, 600_000, number)
        assert child.stdout
        child.stdout.readline()
        time.sleep(chance.random() * 0.15)
        child.kill()
        said = child.communicate(timeout=60)[0].split()
        last = int(said[-1]) if said else number

        found = {info.key: _number(store, info.key) for info in store.walk()}
        assert set(found) <= set(keys)
        for back in range(min(len(keys), last - number + 1)):
            assert found[keys[(last - back) % len(keys)]] in (last - back, last - back + len(keys))
        number = last + 2

    FileStore(folder).write("a", [b"next"])
    assert _hidden(folder) == []


def test_what_another_is_still_writing_is_not_swept(bound: Path) -> None:
    class Slow:
        def __iter__(self) -> Iterator[bytes]:
            yield b"first "
            FileStore(bound).write("other", [b"swept by now"])
            yield b"second"

    FileStore(bound).write("slow", Slow())

    assert b"".join(FileStore(bound).read("slow")) == b"first second"


def _create(folder: Path, number: int) -> list[int]:
    """The keys that this process has won."""
    store, won = FileStore(folder), []
    for key in range(40):
        try:
            store.write(f"race/{key}", [b"%d" % number], only_if=ABSENT)
        except Conflict:
            continue
        won.append(key)
    return won


def _increment(folder: Path, _: int) -> int:
    store, conflicts, done = FileStore(folder), 0, 0
    while done < 25:
        before = store.stat("counter").version
        value = int(b"".join(store.read("counter")))
        try:
            store.write("counter", [b"%d" % (value + 1)], only_if=before)
            done += 1
        except Conflict:
            conflicts += 1
    return conflicts


@pytest.mark.parametrize("where", ["tmp_path", "bound"])
def test_processes_that_race_have_one_winner(where: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(where)
    FileStore(folder).write("counter", [b"0"])

    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        won = list(pool.map(_create, [folder] * 4, range(4)))
        conflicts = sum(pool.map(_increment, [folder] * 4, range(4)))

    assert sorted(key for keys in won for key in keys) == list(range(40))
    assert b"".join(FileStore(folder).read("counter")) == b"100"
    assert conflicts > 0


def test_versions_differ_although_inodes_and_sizes_do_not(tmp_path: Path) -> None:
    store, inodes, versions = FileStore(tmp_path), [], []
    for number in range(200):
        versions.append(store.write("one", [b"%03d" % number]).version)
        inodes.append((tmp_path / "one").stat().st_ino)

    assert len(set(inodes)) < 200
    assert len(set(versions)) == 200


def test_what_a_foreign_program_changes_has_another_version(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    before = store.write("one", [b"ours"]).version
    (tmp_path / "one").write_bytes(b"edit")

    with pytest.raises(Conflict):
        store.write("one", [b"next"], only_if=before)

    assert store.stat("one").version != before


def test_links_lead_nowhere(tmp_path: Path) -> None:
    folder, outside = tmp_path / "store", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("not an object")
    (folder / "to-folder").symlink_to(outside)
    (folder / "to-file").symlink_to(outside / "secret")
    os.mkfifo(folder / "pipe")
    store = FileStore(folder)

    for key in ("to-folder/secret", "to-file", "pipe"):
        with pytest.raises(NotFound):
            store.stat(key)
        with pytest.raises(NotFound):
            list(store.read(key))
        store.delete(key)
    with pytest.raises(Invalid, match="nothing can be stored below 'to-folder'"):
        store.write("to-folder/new", [b"1"])
    with pytest.raises(Conflict):
        store.write("to-file", [b"1"], only_if=ABSENT)
    store.write("to-file", [b"ours"])

    assert list(store.walk("to-folder/")) == []
    assert [info.key for info in store.walk()] == ["to-file"]
    assert sorted(path.name for path in outside.iterdir()) == ["secret"]
    assert (outside / "secret").read_text() == "not an object"


def test_files_that_are_no_objects_are_not_listed(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.write("a", [b"1"])
    for name in (".hidden", "with space", "new\nline", b"\xff".decode(errors="surrogateescape")):
        (tmp_path / name).write_text("")
    (tmp_path / "a folder").mkdir()
    (tmp_path / "a folder/b").write_text("")

    assert [info.key for info in store.walk()] == ["a"]


def test_the_folder_of_a_key_is_no_key(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.write("a/b", [b"1"])

    with pytest.raises(Invalid, match="'a' is a folder of other objects"):
        store.write("a", [b"1"])
    with pytest.raises(Invalid, match="nothing can be stored below 'a/b'"):
        store.write("a/b/c", [b"1"])

    assert [info.key for info in store.walk()] == ["a/b"]


def test_a_full_disk_is_no_space_and_leaves_the_old_object(small: Path) -> None:
    store = FileStore(small)
    before = store.write("one", [b"old"])

    with pytest.raises(NoSpace, match=f"no space left in '{small}'"):
        store.write("one", [bytes(1 << 20)] * 3, only_if=before.version)

    assert store.stat("one") == before
    store.write("two", [bytes(1 << 20)])
    assert _hidden(small) == []


def test_a_disk_that_became_read_only_is_unavailable_and_still_read(small: Path) -> None:
    store = FileStore(small)
    store.write("one", [b"old"])
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)

    for change in (
        lambda: store.write("one", [b"new"]),
        lambda: store.write("a/b", [b"1"]),
        lambda: store.delete("one"),
    ):
        with pytest.raises(Unavailable, match="read-only file system; look at its owner"):
            change()

    assert b"".join(store.read("one")) == b"old"


def test_a_folder_that_is_missing_is_never_made(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "not-mounted")

    for ask in (
        *(lambda: store.stat("a"), lambda: list(store.read("a")), lambda: list(store.walk())),
        *(lambda: store.write("a", [b"1"]), lambda: store.delete("a")),
    ):
        with pytest.raises(Unavailable, match=r"there is no folder '.*not-mounted': make it, or mount"):
            ask()

    assert list(tmp_path.iterdir()) == []


def test_a_name_too_long_for_a_filesystem_is_invalid(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="too long"):
        FileStore(tmp_path).write("k" * 300, [b"1"])


def test_eight_threads_make_one_folder(tmp_path: Path) -> None:
    start = threading.Barrier(8)

    def write(number: int) -> None:
        start.wait(10)
        FileStore(tmp_path).write(f"deep/down/below/{number}", [b"1"])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(list(FileStore(tmp_path).walk("deep/down/"))) == 8


def test_objects_are_plain_files_for_their_owner(tmp_path: Path) -> None:
    FileStore(tmp_path).write("a/b", [b"plain"])

    assert (tmp_path / "a/b").read_bytes() == b"plain"
    assert (tmp_path / "a/b").stat().st_mode & 0o777 == 0o600
    assert abs((tmp_path / "a/b").stat().st_mtime - time.time()) < 5


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    before = len(os.listdir("/proc/self/fd"))

    for number in range(5):
        store.write(f"a/{number}", [b"1"])
        next(store.walk())
        next(store.read(f"a/{number}"))
        with pytest.raises(Conflict):
            store.write(f"a/{number}", [b"1"], only_if=ABSENT)

    assert len(os.listdir("/proc/self/fd")) == before
