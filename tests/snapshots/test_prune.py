"""Pruning while others work, killed at every step, beside stock restic."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from tests.snapshots.parts import PASSWORD, FolderStore, checked, everything, restic
from tests.snapshots.turns import Killed

from orlop.errors import Busy, Corrupt
from orlop.objects.store import MemoryStore, ObjectInfo
from orlop.snapshots.check import check
from orlop.snapshots.documents import IndexFile, LockFile, SnapshotFile
from orlop.snapshots.locks import Lock
from orlop.snapshots.packs import pack_key
from orlop.snapshots.prune import prune
from orlop.snapshots.pruneplan import Action, PackState, decide
from orlop.snapshots.repository import Repository
from orlop.snapshots.restore import restore
from orlop.snapshots.save import About, save
from orlop.snapshots.writer import Writer


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "repository"


@pytest.fixture
def repository(place: Path) -> Repository:
    return Repository.create(FolderStore(place), PASSWORD)


def filled(folder: Path, seed: int) -> Path:
    """A folder of which half is the same for every seed."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(20):
        content = random.Random(number if number % 2 else f"{seed} {number}").randbytes(2000)
        (folder / f"{number}").write_bytes(content)
    (folder / "large").write_bytes(random.Random(seed).randbytes(1 << 20))
    return folder


def saved(repository: Repository, folder: Path, parent: str | None = None) -> str:
    return save(repository, folder, About("data", time.time_ns()), parent=parent, processes=1).snapshot


def verbs(actions: Iterable[Action]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for action in actions:
        found.setdefault(action.verb, set()).add(action.pack)
    return found


def data(repository: Repository) -> set[str]:
    return {info.key for info in repository.listed("data")}


@pytest.mark.part("S5")
def test_what_nobody_needs_is_marked_and_swept_by_a_later_prune(
    tmp_path: Path, place: Path, repository: Repository
) -> None:
    first = saved(repository, filled(tmp_path / "source", 1))
    second = saved(repository, filled(tmp_path / "source", 2), first)
    before = data(repository)
    repository.forget(first)

    marking = prune(repository, grace=0)
    checked(place)
    sweeping = prune(repository, grace=0)

    assert marking.freed == 0
    assert verbs(marking.actions).keys() == {"mark", "repack"}
    assert sweeping.freed > 1 << 20
    assert before - data(repository)
    restore(repository, repository.snapshot(second), tmp_path / "target", path="data")
    assert everything(tmp_path / "target") == everything(tmp_path / "source")
    checked(place)
    assert not prune(repository, grace=0).actions


def test_a_dry_run_says_the_same_and_changes_nothing(tmp_path: Path, repository: Repository) -> None:
    repository.forget(saved(repository, filled(tmp_path / "source", 1)))
    before = {info.key: info.version for info in repository.store.walk() if not info.key.startswith("locks/")}

    shown = prune(repository, dry_run=True)
    after = {info.key: info.version for info in repository.store.walk()}

    assert before == after
    assert prune(repository).actions == shown.actions


def test_nothing_is_swept_before_its_time_by_the_clock_of_the_store(tmp_path: Path, repository: Repository) -> None:
    repository.forget(saved(repository, filled(tmp_path / "source", 1)))
    prune(repository)

    early = prune(repository)
    for info in repository.listed("index"):
        path = tmp_path / "repository" / info.key
        os.utime(path, (info.modified - 4000, info.modified - 4000))
    late = prune(repository)

    assert verbs(early.actions).keys() == {"wait"}
    assert "it was marked" in early.actions[0].reason
    assert verbs(late.actions).keys() == {"sweep"}


@pytest.mark.part("S5")
def test_who_was_at_work_when_packs_were_marked_keeps_them(tmp_path: Path, place: Path, repository: Repository) -> None:
    source = filled(tmp_path / "source", 1)
    first = saved(repository, source)
    other = Repository.open(repository.store, PASSWORD)
    with Writer(other) as writer:
        tree = other.snapshot(first).tree
        assert writer.has("tree", bytes.fromhex(tree))
        repository.forget(first)

        prune(repository, grace=0)
        waiting = prune(repository, grace=0)

        assert verbs(waiting.actions).keys() == {"wait"}
        assert "1 sessions from before the mark" in waiting.actions[0].reason

    swept = prune(repository, grace=0)
    assert verbs(swept.actions).keys() == {"sweep"}
    checked(place)


def test_what_a_save_relied_on_is_live_again_when_it_commits(
    tmp_path: Path, place: Path, repository: Repository
) -> None:
    source = filled(tmp_path / "source", 1)
    first = saved(repository, source)
    time.sleep(0.05)
    pruner = Repository.open(repository.store, PASSWORD)
    done = []

    def prune_meanwhile(progress: object) -> None:
        if not done:
            pruner.forget(first)
            done.append(prune(pruner, grace=0))

    about = About("data", time.time_ns())
    second = save(repository, source, about, parent=first, progress=prune_meanwhile).snapshot

    assert verbs(done[0].actions).keys() == {"mark"}
    checked(place)  # stock restic finds everything, before any other prune
    assert "sweep" not in verbs(prune(repository, grace=0).actions)
    restore(repository, repository.snapshot(second), tmp_path / "target", path="data")
    assert everything(tmp_path / "target") == everything(source)


def test_a_marked_pack_that_a_snapshot_needs_is_recovered_and_readable_all_the_time(
    tmp_path: Path, place: Path, repository: Repository
) -> None:
    source = filled(tmp_path / "source", 1)
    first = saved(repository, source)
    snapshot = repository.snapshot(first)
    repository.forget(first)
    prune(repository, grace=0)
    # As one that was at work before the mark, and whose host slept just when it looked for marks.
    name, _ = repository.put("snapshots", msgspec.json.encode(snapshot))

    reading = Repository.open(repository.store, PASSWORD)
    restore(reading, reading.snapshot(name), tmp_path / "target", path="data")
    recovering = prune(repository, grace=0)

    assert everything(tmp_path / "target") == everything(source)
    assert verbs(recovering.actions).keys() == {"recover"}
    checked(place)


def test_a_save_after_the_mark_stores_again_what_was_marked(
    tmp_path: Path, place: Path, repository: Repository
) -> None:
    source = filled(tmp_path / "source", 1)
    repository.forget(saved(repository, source))
    prune(repository, grace=0)

    second = saved(Repository.open(repository.store, PASSWORD), source)
    prune(repository, grace=0)

    restore(repository, repository.snapshot(second), tmp_path / "target", path="data")
    assert everything(tmp_path / "target") == everything(source)
    checked(place)


def test_what_a_killed_save_left_goes_in_two_steps_too(repository: Repository) -> None:
    with pytest.raises(KeyboardInterrupt), Writer(repository) as writer:
        writer.add("data", b"x" * 100)
        writer.flush()
        for info in repository.listed("index"):
            repository.store.delete(info.key)
        raise KeyboardInterrupt

    assert verbs(prune(repository, grace=0).actions).keys() == {"mark"}
    assert verbs(prune(repository, grace=0).actions).keys() == {"sweep"}
    assert data(repository) == set()


@pytest.mark.part("S5")
def test_of_two_marks_of_a_pack_the_later_counts(repository: Repository) -> None:
    # Marked, recovered, and marked again by a prune that was killed before it took the first mark away.
    with Writer(repository) as writer:
        writer.add("data", b"x" * 100)
        writer.flush()
    (listed,) = (packs for file in repository.indexes.files().values() for packs in file.packs or ())
    for info in repository.listed("index"):
        repository.store.delete(info.key)
    for _ in range(8):  # under as many names, so that no order of them is the right one by chance
        repository.put("index", msgspec.json.encode(IndexFile([], packs_to_delete=[listed], orlop_sessions=[])))
    with Lock(repository):
        repository.put("index", msgspec.json.encode(IndexFile([], packs_to_delete=[listed])))
        assert verbs(prune(repository, grace=0).actions).keys() == {"wait"}
        assert verbs(prune(repository, grace=0).actions).keys() == {"wait"}
    assert verbs(prune(repository, grace=0).actions).keys() == {"sweep"}


@pytest.mark.part("S5")
def test_an_index_that_comes_after_the_mark_keeps_its_blobs(repository: Repository) -> None:
    # A prune sees the pack of a save before its index, and marks it without knowing what is in it.
    with Writer(repository) as writer:
        blob = writer.add("data", b"x" * 100)
        writer.flush()
        late = {info.key: b"".join(repository.store.read(info.key)) for info in repository.listed("index")}
        for key in late:
            repository.store.delete(key)
        pruner = Repository.open(repository.store, PASSWORD)
        assert verbs(prune(pruner, grace=0).actions).keys() == {"mark"}
        for key, content in late.items():
            repository.store.write(key, [content])
        for _ in range(8):
            writer._reliance.keep(SnapshotFile("2026-11-23T05:41:23Z", blob.hex()))
        # Now it is in an index, and nothing needs it yet: marked again, with its blobs, and recovered with them.
        assert verbs(prune(pruner, grace=0).actions).keys() == {"mark"}
        assert not Repository.open(repository.store, PASSWORD).has("data", blob)
        writer._reliance.keep(SnapshotFile("2026-11-23T05:41:23Z", blob.hex()))
    assert Repository.open(repository.store, PASSWORD).has("data", blob)


@pytest.mark.part("S5")
def test_restic_prunes_beside_us_and_we_beside_restic(tmp_path: Path, place: Path, repository: Repository) -> None:
    first = saved(repository, filled(tmp_path / "source", 1))
    second = saved(repository, filled(tmp_path / "source", 2))
    restic(place, "backup", str(tmp_path / "source"))
    restic(place, "forget", first)
    prune(repository, grace=0)

    restic(place, "prune")
    third = saved(repository, filled(tmp_path / "source", 3))
    prune(repository, grace=0)
    prune(repository, grace=0)

    for name, seed in ((second, 2), (third, 3)):
        restore(repository, repository.snapshot(name), tmp_path / name, path="data", delete=True)
        assert (tmp_path / name / "large").read_bytes() == random.Random(seed).randbytes(1 << 20)
    checked(place)


def test_one_prune_at_a_time_and_none_beside_an_exclusive_lock(repository: Repository) -> None:
    with Writer(repository, prune=True), pytest.raises(Busy, match="for pruning"):
        prune(repository)

    repository.put("locks", msgspec.json.encode(LockFile("2026-11-22T05:41:23Z", True, "elsewhere")))
    with pytest.raises(Busy, match="exclusively"):
        prune(repository)


def test_a_damaged_repository_is_not_pruned(tmp_path: Path, repository: Repository) -> None:
    saved(repository, filled(tmp_path / "source", 1))
    lost = next(iter(repository.index.blobs("data")))
    repository.forget(saved(repository, filled(tmp_path / "source", 2)))
    repository.store.delete(pack_key(repository.place("data", lost)[0]))
    before = data(repository)

    with pytest.raises(Corrupt, match="nothing is pruned"):
        prune(repository, grace=0)

    assert data(repository) == before


def test_many_small_packs_become_few(tmp_path: Path, place: Path, repository: Repository) -> None:
    for seed in range(9):
        (tmp_path / "source").mkdir(exist_ok=True)
        (tmp_path / "source" / str(seed)).write_bytes(os.urandom(500))
        saved(repository, tmp_path / "source")

    prune(repository, grace=0)
    prune(repository, grace=0)

    assert len(data(repository)) == 2
    assert not prune(repository, grace=0).actions
    checked(place)


GONE = frozenset[str]()


@pytest.mark.parametrize(
    ("pack", "sessions", "verb"),
    [
        (PackState("p", "data", 100, 90, 90, "live"), GONE, None),
        (PackState("p", "data", 100, 90, 40, "live"), GONE, "repack"),
        (PackState("p", "data", 100, 90, 0, "live"), GONE, "mark"),
        (PackState("p", "", 100, 0, 0, "loose"), GONE, "mark"),
        (PackState("p", "data", 100, 90, 0, "marked", None, 9e9), GONE, "wait"),
        (PackState("p", "data", 100, 90, 0, "marked", frozenset("a"), 9e9), frozenset("ab"), "wait"),
        (PackState("p", "data", 100, 90, 0, "marked", frozenset("a"), 9e9), frozenset("b"), "sweep"),
        (PackState("p", "data", 100, 90, 0, "marked", GONE, 3599.0), GONE, "wait"),
        (PackState("p", "data", 100, 90, 0, "marked", GONE, -86400.0), GONE, "wait"),
        (PackState("p", "data", 100, 90, 1, "marked", GONE, 9e9), GONE, "recover"),
    ],
)
def test_what_is_decided_about_a_pack(pack: PackState, sessions: frozenset[str], verb: str | None) -> None:
    assert [action.verb for action in decide([pack], sessions, 3600.0)] == ([verb] if verb else [])


# -- kills


class Mortal(MemoryStore):
    """A store whose user is killed at its n-th change: that one happens or not, and nothing after it."""

    def __init__(self, objects: dict[str, tuple[bytes, ObjectInfo]], changes: int, *, last_happens: bool) -> None:
        super().__init__()
        self._objects = dict(objects)
        self.left, self._last_happens, self.dead = changes, last_happens, False

    def write(self, key: str, data: Iterable[bytes], *, only_if: str | None = None) -> ObjectInfo:
        return self._step(lambda: super(Mortal, self).write(key, data, only_if=only_if))

    def delete(self, key: str) -> None:
        self._step(lambda: super(Mortal, self).delete(key))

    def walk(self, prefix: str = "") -> Iterator[ObjectInfo]:
        if self.dead:
            raise Killed
        return super().walk(prefix)

    def _step(self, change: Callable[[], object]):  # type: ignore[no-untyped-def]
        self.left -= 1
        if self.dead or self.left < 0:
            self.dead = True
            if self.left == -1 and self._last_happens:
                change()
            raise Killed
        return change()


def killed_everywhere(before: MemoryStore, work: Callable[[Repository], object]) -> Iterator[MemoryStore]:
    """What is in the store after a kill at each of the changes that the work makes."""
    for changes in range(1000):
        for last_happens in (False, True):
            store = Mortal(before._objects, changes, last_happens=last_happens)
            try:
                work(Repository.open(store, PASSWORD))
            except Killed:
                survived = MemoryStore()
                survived._objects = {key: value for key, value in store._objects.items() if "locks/" not in key}
                yield survived
                continue
            return


def in_memory(tmp_path: Path) -> tuple[MemoryStore, str, str]:
    store = MemoryStore()
    repository = Repository.create(store, PASSWORD)
    first = saved(repository, filled(tmp_path / "source", 1))
    return store, first, saved(repository, filled(tmp_path / "source", 2))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_save_killed_at_any_change_harms_nothing(tmp_path: Path) -> None:
    store, first, second = in_memory(tmp_path)
    source = filled(tmp_path / "source", 3)

    count = 0
    for survived in killed_everywhere(store, lambda repository: saved(repository, source)):
        repository = Repository.open(survived, PASSWORD)
        assert check(repository, read_data=True) == []
        assert {first, second} <= repository.snapshots().keys()
        count += 1

    assert count >= 8


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("marked", [False, True])
def test_a_prune_killed_at_any_change_harms_nothing(tmp_path: Path, marked: bool) -> None:
    store, first, second = in_memory(tmp_path)
    Repository.open(store, PASSWORD).forget(first)
    if marked:
        prune(Repository.open(store, PASSWORD), grace=0)

    count = 0
    for survived in killed_everywhere(store, lambda repository: prune(repository, grace=0)):
        repository = Repository.open(survived, PASSWORD)
        assert check(repository, read_data=True) == []
        for _ in range(3):
            prune(repository, grace=0)
        assert check(repository, read_data=True) == []
        assert list(repository.snapshots()) == [second]
        assert not prune(repository, grace=0).actions
        count += 1

    assert count >= 6


def killed_at_random(place: Path, statement: str, longest: float) -> None:
    program = (
        "import sys, time; from pathlib import Path; sys.path.insert(0, '.')\n"
        "from tests.snapshots.parts import *\n"
        "from orlop.snapshots.repository import Repository; from orlop.snapshots.save import save, About\n"
        "from orlop.snapshots.prune import prune\n"
        f"r = Repository.open(FolderStore(Path({str(place)!r})), PASSWORD)\n{statement}\n"
    )
    run = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    time.sleep(random.uniform(0.15, longest))
    run.send_signal(signal.SIGKILL)
    run.communicate()


@pytest.mark.part("S2", "S5")
def test_processes_killed_at_random_leave_a_clean_repository(
    tmp_path: Path, place: Path, repository: Repository
) -> None:
    source = filled(tmp_path / "source", 1)
    kept = saved(repository, source)

    for seed in range(3):
        filled(source, seed + 5)
        killed_at_random(place, f"save(r, Path({str(source)!r}), About('data', time.time_ns()))", 0.7)
        for name in repository.snapshots().keys() - {kept}:
            repository.forget(name)
        killed_at_random(place, "prune(r, grace=0)", 0.5)

    checked(place)
    assert check(repository, read_data=True) == []
    restore(repository, repository.snapshot(kept), tmp_path / "target", path="data")
    assert (tmp_path / "target" / "large").read_bytes() == random.Random(1).randbytes(1 << 20)


class Saver:
    """Somebody who saves again and again, and forgets some of it."""

    def __init__(self, store: FolderStore, folder: Path, number: int) -> None:
        self._repository, self._folder, self._number = Repository.open(store, PASSWORD), folder, number
        self.kept: dict[str, int] = {}

    def work(self) -> None:
        parent = None
        for seed in range(self._number * 100, self._number * 100 + 4):
            name = saved(self._repository, filled(self._folder, seed), parent)
            if parent is not None and seed % 2:
                self._repository.forget(parent)
                del self.kept[parent]
            self.kept[name] = seed
            parent = name


@pytest.mark.part("S5")
def test_saves_and_prunes_at_the_same_time_lose_nothing(tmp_path: Path, place: Path, repository: Repository) -> None:
    savers = [Saver(repository.store, tmp_path / f"source {number}", number) for number in range(3)]
    pruner = Repository.open(repository.store, PASSWORD)
    with ThreadPoolExecutor(3) as threads:
        work = [threads.submit(saver.work) for saver in savers]
        while not all(one.done() for one in work):
            prune(pruner, grace=0)
        for one in work:
            one.result()

    kept = {name: seed for saver in savers for name, seed in saver.kept.items()}
    assert repository.snapshots().keys() == kept.keys()
    checked(place)
    for name, seed in kept.items():
        restore(repository, repository.snapshot(name), tmp_path / name, path="data")
        assert (tmp_path / name / "large").read_bytes() == random.Random(seed).randbytes(1 << 20)
