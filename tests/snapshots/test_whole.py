"""What a host remembers of snapshots that have all their blobs: they are not asked for, and it is never wrong."""

import os
import random
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from tests.snapshots.parts import PASSWORD, FolderStore, checked, everything, restic

from orlop.errors import Corrupt
from orlop.snapshots import reliance, whole, writer
from orlop.snapshots.documents import IndexFile, SnapshotFile
from orlop.snapshots.hostfile import HostFile
from orlop.snapshots.packs import Kind, pack_key
from orlop.snapshots.prune import prune
from orlop.snapshots.repository import Repository
from orlop.snapshots.restore import restore
from orlop.snapshots.save import About, save
from orlop.snapshots.saved import Saved
from orlop.snapshots.whole import Whole
from orlop.snapshots.writer import Writer

FILES = 23
TREE = b'{"nodes":[]}\n'


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A repository."""
    Repository.create(FolderStore(tmp_path / "repository"), PASSWORD, is_random=True)
    return tmp_path / "repository"


@pytest.fixture
def host(place: Path, tmp_path: Path) -> Callable[[], Repository]:
    """The repository as each process of a host opens it, with what is kept there."""
    return lambda: Repository.open(FolderStore(place), PASSWORD, cache=tmp_path / "cache")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with `FILES`, which stand still."""
    folder = tmp_path / "source"
    (folder / "deep" / "er").mkdir(parents=True)
    for number in range(FILES - 1):
        place = (folder, folder / "deep", folder / "deep" / "er")[number % 3]
        (place / f"{number}").write_bytes(random.Random(number).randbytes(2000))
    (folder / "large").write_bytes(random.Random(99).randbytes(2 << 20))
    time.sleep(0.05)
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Kind]:
    """For what somebody has asked whether it is there, as many blobs at once."""
    kinds, ask = list[Kind](), Writer.has_all

    def has_all(self: Writer, kind: Kind, blobs: Sequence[str]) -> bool:
        kinds.append(kind)
        return ask(self, kind, blobs)

    monkeypatch.setattr(Writer, "has_all", has_all)
    return kinds


def saved(repository: Repository, folder: Path, parent: str | None = None, **more: object) -> Saved:
    return save(repository, folder, About("data", time.time_ns()), parent=parent, processes=1, **more)


def kept(cache: Path) -> Path:
    (file,) = cache.glob("whole-*")
    return file


def committed(session: Writer) -> str:
    return session.commit(SnapshotFile("2026-11-23T05:41:23Z", session.add("tree", TREE).hex()))


def damaged(*_: object) -> None:
    raise Corrupt("it is damaged")


def comes_back(repository: Repository, snapshot: str, source: Path) -> bool:
    target = source.with_name("target")
    shutil.rmtree(target, ignore_errors=True)
    assert restore(repository, repository.snapshot(snapshot), target, path="data").problems == []
    return everything(target) == everything(source)


@pytest.mark.part("S2")
def test_nothing_is_asked_for_while_a_folder_stays_as_it_is(
    host: Callable[[], Repository], place: Path, source: Path, asked: list[Kind]
) -> None:
    last = saved(host(), source).snapshot
    for _ in range(3):
        done = saved(host(), source, last)
        last = done.snapshot
        assert (done.files, done.unchanged) == (FILES, FILES) or done.unchanged >= FILES - 2  # a few are read again
        assert done.stored == 0

    (source / "deep" / "1").write_text("another")
    os.utime(source / "3")
    done = saved(host(), source, last, same=lambda path, *_: path == b"3")

    assert asked == []
    assert 0 < done.stored < 20_000
    assert comes_back(host(), done.snapshot, source)
    checked(place)


def test_what_another_host_has_saved_is_asked_for_once(
    host: Callable[[], Repository], place: Path, source: Path, asked: list[Kind]
) -> None:
    theirs = saved(Repository.open(FolderStore(place), PASSWORD), source).snapshot
    ours = saved(host(), source, theirs)
    assert set(asked) == {"data", "tree"}
    assert ours.stored == 0

    asked.clear()
    (source / "new").write_text("by the other host")
    saved(Repository.open(FolderStore(place), PASSWORD), source)
    (source / "new").unlink()
    saved(host(), source, ours.snapshot)

    assert asked == []


def test_without_a_cache_everything_is_asked_for(place: Path, source: Path, asked: list[Kind]) -> None:
    repository = Repository.open(FolderStore(place), PASSWORD)
    first = saved(repository, source).snapshot

    saved(repository, source, first)

    assert set(asked) == {"data", "tree"}


@pytest.mark.part("S5")
def test_after_a_prune_it_begins_anew_whether_or_not_something_is_marked(
    host: Callable[[], Repository], place: Path, source: Path, asked: list[Kind]
) -> None:
    (source / "garbage").write_bytes(os.urandom(4 << 20))
    first = saved(host(), source).snapshot
    (source / "garbage").unlink()
    last = saved(host(), source, first).snapshot
    host().forget(first)
    assert {action.verb for action in prune(host(), grace=0).actions} >= {"repack"}

    asked.clear()
    last = saved(host(), source, last).snapshot
    assert set(asked) == {"data", "tree"}
    asked.clear()
    last = saved(host(), source, last).snapshot
    assert asked == []  # although something is marked

    assert {action.verb for action in prune(host(), grace=0).actions} == {"sweep"}
    for _ in range(2):
        last = saved(host(), source, last).snapshot
    assert comes_back(host(), last, source)
    checked(place)


@pytest.mark.part("S2")
@pytest.mark.parametrize("by", ["hand", "restic"])
def test_what_has_gone_with_its_index_file_is_stored_again(
    host: Callable[[], Repository], place: Path, source: Path, asked: list[Kind], by: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # An index file for each pack, also for two that are stored at about the same time.
    monkeypatch.setattr(writer, "FULL_INDEX", 1)
    monkeypatch.setattr(writer, "_UPLOADS", 1)
    first = saved(host(), source).snapshot
    second = saved(host(), source, first).snapshot
    assert asked == []
    repository = host()
    for info in repository.listed("index"):
        (pack,) = repository.indexes.file(info.key.removeprefix("index/")).packs or ()
        if pack.blobs and pack.blobs[0].type == "data":
            repository.store.delete(pack_key(pack.id))
            if by == "hand":
                repository.store.delete(info.key)
    if by == "restic":
        restic(place, "rebuild-index")

    third = saved(host(), source, second)

    assert "data" in asked
    assert third.stored > 2 << 20
    assert comes_back(host(), third.snapshot, source)
    checked(place)
    asked.clear()
    fourth = saved(host(), source, third.snapshot)
    assert (asked, fourth.stored) == ([], 0)


def test_while_a_pack_is_live_and_marked_everything_is_asked_for(
    host: Callable[[], Repository], source: Path, asked: list[Kind]
) -> None:
    first = saved(host(), source).snapshot
    repository = host()
    (info,) = repository.listed("index")
    packs = repository.indexes.file(info.key.removeprefix("index/")).packs
    # As a prune leaves it that was killed before it took them from the others.
    repository.put("index", msgspec.json.encode(IndexFile([], packs_to_delete=packs)))

    second = saved(host(), source, first)

    assert set(asked) == {"data", "tree"}
    assert second.stored == 0


@pytest.mark.part("S5")
@pytest.mark.parametrize("trees", ["are read", "are damaged"])
def test_what_was_not_asked_for_and_is_marked_meanwhile_is_live_again(
    host: Callable[[], Repository], place: Path, source: Path, tmp_path: Path, asked: list[Kind], trees: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "garbage").mkdir()
    (tmp_path / "garbage" / "file").write_bytes(os.urandom(3 << 20))
    garbage, first = saved(host(), tmp_path / "garbage").snapshot, saved(host(), source).snapshot
    pruner, done = Repository.open(FolderStore(place), PASSWORD), []
    pruner.forget(garbage)
    if trees == "are damaged":
        monkeypatch.setattr(reliance, "usage", damaged)

    def prune_meanwhile(_: object) -> None:
        if not done:
            pruner.forget(first)
            done.append(prune(pruner, grace=0))

    second = saved(host(), source, first, progress=prune_meanwhile)

    assert (asked, second.stored) == ([], 0)
    assert {action.verb for action in done[0].actions} == {"mark"}
    checked(place)  # stock restic finds everything, before any other prune
    freed = [prune(pruner, grace=0).freed for _ in range(2)]
    assert (freed[0] > 3 << 20) == (trees == "are read")  # more was relied on than is needed, if nobody can say
    assert sum(freed) > 3 << 20
    third = saved(host(), source, second.snapshot)
    assert asked  # the index files that listed it were replaced
    assert comes_back(host(), third.snapshot, source)
    checked(place)


@pytest.mark.part("S2")
def test_a_record_that_is_damaged_or_not_ours_is_none(
    host: Callable[[], Repository], source: Path, asked: list[Kind], tmp_path: Path
) -> None:
    other = Repository.create(FolderStore(tmp_path / "other"), PASSWORD, cache=tmp_path / "others")
    saved(other, source)
    first, chance = saved(host(), source).snapshot, random.Random(1)
    good, seal = kept(tmp_path / "cache").read_bytes(), host().seal
    bad = [b"", good[:7], good[:-1], good + b"x", b"\xff" * 8 + good[8:], kept(tmp_path / "others").read_bytes()]
    bad += [good[:7] + b"\x10" + good[8:], good + good]
    for _ in range(20):
        at = chance.randrange(len(good))
        bad.append(good[:at] + bytes([good[at] ^ 1 << chance.randrange(8)]) + good[at + 1 :])
    HostFile(tmp_path / "strange", seal).replace([msgspec.msgpack.encode({"format": 2, "names": [], "snapshots": []})])
    bad.append((tmp_path / "strange").read_bytes())

    for content in bad:
        kept(tmp_path / "cache").write_bytes(content)
        with Writer(host()) as session:
            assert not session.has_whole(first)

    kept(tmp_path / "cache").write_bytes(bad[0])
    second = saved(host(), source, first).snapshot
    assert asked
    asked.clear()
    saved(host(), source, second)
    assert asked == []


def test_it_is_for_nobody_else_and_says_nothing(host: Callable[[], Repository], source: Path, tmp_path: Path) -> None:
    snapshot = saved(host(), source).snapshot
    file = kept(tmp_path / "cache")

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert snapshot.encode() not in file.read_bytes()
    assert bytes.fromhex(snapshot) not in file.read_bytes()


def test_it_remembers_the_newest_and_what_is_still_true(
    host: Callable[[], Repository], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole, "_MOST", 3)
    record = Whole(HostFile(tmp_path / "record", host().seal))
    for number in range(5):
        record.add(f"{number}", {"a", f"of {number}"}, {f"of {other}" for other in range(5)})
    names = {"a", "of 0", "of 1", "of 2", "of 3", "of 4"}

    assert [record.has(f"{number}", names | {"more"}) for number in range(5)] == [False, False, True, True, True]
    assert not record.has("4", names - {"of 0"})
    assert not record.has("5", names)
    record.add("new", {"a"}, names - {"of 0"})
    assert record.has("new", {"a"})
    assert not record.has("4", names)
    assert not Whole(None).has("4", names)


def test_a_large_record_is_small(host: Callable[[], Repository], tmp_path: Path) -> None:
    record = Whole(HostFile(tmp_path / "record", host().seal))
    names = {os.urandom(32).hex() for _ in range(1000)}
    for _ in range(1005):
        record.add(os.urandom(32).hex(), names, set())
    before = time.process_time()

    record.add("one", names, set())
    assert record.has("one", names)

    assert time.process_time() - before < 0.05
    assert (tmp_path / "record").stat().st_size < 150_000


def test_of_two_sessions_at_once_both_snapshots_are_remembered(host: Callable[[], Repository]) -> None:
    with Writer(host()) as one, Writer(host()) as other:
        one.add("data", b"one")
        other.add("data", b"other")
        names = [committed(one), committed(other)]

    with Writer(host()) as later:
        assert [later.has_whole(name) for name in names] == [True, True]


@pytest.fixture
def found_late(host: Callable[[], Repository], place: Path) -> Iterator[tuple[Writer, Repository, str]]:
    """A session that counts on a blob of another one, the repository as that sees it, and the blob's index file."""
    other = Repository.open(FolderStore(place), PASSWORD)
    with Writer(host()) as session:
        with Writer(other) as theirs:
            blob = theirs.add("data", b"theirs")
            theirs.flush()
        assert not session.has("data", blob)
        session.repository.indexes.look()
        assert session.has("data", blob)
        (name,) = other.indexes.names
        yield session, other, name


def test_what_was_found_in_an_index_file_that_came_later_needs_that_file(
    host: Callable[[], Repository], found_late: tuple[Writer, Repository, str]
) -> None:
    session, other, name = found_late
    snapshot = committed(session)
    with Writer(host()) as later:
        assert later.has_whole(snapshot)

    other.remove("index", name)

    with Writer(host()) as later:
        assert not later.has_whole(snapshot)


def test_who_saw_an_index_file_go_remembers_nothing(
    host: Callable[[], Repository], found_late: tuple[Writer, Repository, str]
) -> None:
    session, other, name = found_late
    other.remove("index", name)
    session.repository.indexes.look()

    snapshot = committed(session)

    with Writer(host()) as later:
        assert not later.has_whole(snapshot)
