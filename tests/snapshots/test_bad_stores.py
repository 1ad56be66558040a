"""Stores that are full, slow, or list what was there a while ago: what was acknowledged stays, the rest is an error."""

import random
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from tests.snapshots.parts import PASSWORD, FolderStore, checked

from orlop.errors import Busy, NoSpace
from orlop.objects.files import FileStore
from orlop.objects.store import ObjectInfo
from orlop.snapshots.check import check
from orlop.snapshots.prune import prune
from orlop.snapshots.repository import Repository
from orlop.snapshots.restore import restore
from orlop.snapshots.save import About, save

pytestmark = pytest.mark.part("S2", "S5")


def filled(folder: Path, seed: int, size: int = 1 << 20) -> Path:
    """A folder with one large file and three small ones, all of which the seed decides."""
    folder.mkdir(exist_ok=True)
    (folder / "large").write_bytes(random.Random(seed).randbytes(size))
    for number in range(3):
        (folder / f"small {number}").write_text(f"{seed} {number}")
    return folder


def saved(repository: Repository, folder: Path) -> str:
    done = save(repository, folder, About("data", time.time_ns()), processes=1)
    assert done.is_complete
    return done.snapshot


def seeds(repository: Repository, snapshots: Iterable[str], target: Path) -> list[int]:
    """Which seed each snapshot was made from, by what is restored from it."""
    found = []
    for name in snapshots:
        done = restore(repository, repository.snapshot(name), target, path="data", delete=True)
        assert done.problems == []
        seed = int((target / "small 0").read_text().split()[0])
        assert (target / "large").read_bytes() == random.Random(seed).randbytes((target / "large").stat().st_size)
        found.append(seed)
    return found


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 12 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_store_refuses_a_save_and_keeps_what_it_has(tmp_path: Path, small: Path) -> None:
    repository = Repository.create(FileStore(small), PASSWORD)
    first = saved(repository, filled(tmp_path / "source", 1, 4 << 20))

    with pytest.raises(NoSpace):
        saved(repository, filled(tmp_path / "source", 2, 20 << 20))

    assert list(repository.snapshots()) == [first]
    checked(small)
    for _ in range(3):
        prune(repository, grace=0)
    second = saved(repository, filled(tmp_path / "source", 3, 4 << 20))
    checked(small)
    assert seeds(repository, [first, second], tmp_path / "target") == [1, 3]


def test_a_prune_of_a_full_store_loses_nothing_and_goes_on_when_there_is_room(tmp_path: Path, small: Path) -> None:
    repository = Repository.create(FileStore(small), PASSWORD)
    names = [saved(repository, filled(tmp_path / "source", seed, 3 << 20)) for seed in (1, 2, 3)]
    repository.forget(names.pop(0))
    rest = small / "rest"
    with rest.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))

    with pytest.raises(NoSpace):
        prune(repository, grace=0)
    rest.unlink()
    assert check(repository, read_data=True) == []
    pruned = [prune(repository, grace=0) for _ in range(3)]

    assert sum(each.freed for each in pruned) > 3 << 20
    checked(small)
    assert seeds(repository, names, tmp_path / "target") == [2, 3]


class Slow(FolderStore):
    """Every answer takes its time; ``asked`` counts them."""

    asked = 0

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        self._wait()
        return super().read(key, start, end)

    def write(self, key: str, data: Iterable[bytes], *, only_if: str | None = None) -> ObjectInfo:
        self._wait()
        return super().write(key, data, only_if=only_if)

    def walk(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self._wait()
        return super().walk(prefix)

    def _wait(self) -> None:
        self.asked += 1
        time.sleep(0.03)


def test_a_slow_store_is_not_asked_more_often_when_there_are_more_snapshots(tmp_path: Path) -> None:
    store = Slow(tmp_path / "repository")
    repository = Repository.create(store, PASSWORD)
    asked = []
    for seed in range(12):
        before = store.asked
        saved(repository, filled(tmp_path / "source", seed))
        asked.append(store.asked - before)

    assert asked[-1] <= asked[1]
    checked(tmp_path / "repository")


class Counting(FolderStore):
    """Answers late; ``most`` is how many questions waited at one time, ``asked`` how many there were."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._guard, self._waiting, self.most, self.asked = threading.Lock(), 0, 0, 0

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        with self._guard:
            self.asked += 1
            self._waiting += 1
            self.most = max(self.most, self._waiting)
        time.sleep(0.1)
        with self._guard:
            self._waiting -= 1
        return super().read(key, start, end)


@pytest.mark.parametrize(("count", "size"), [(2500, 100), (12, 3 << 20)], ids=["small", "large"])
def test_a_restore_does_not_wait_for_one_answer_before_it_asks_again(tmp_path: Path, count: int, size: int) -> None:
    store, source = Counting(tmp_path / "repository"), tmp_path / "source"
    repository = Repository.create(store, PASSWORD)
    source.mkdir()
    for number in range(count):
        (source / str(number)).write_bytes(random.Random(number).randbytes(size))
    snapshot = repository.snapshot(saved(repository, source))
    store.most = 0

    assert restore(repository, snapshot, tmp_path / "target", path="data").problems == []

    assert 4 <= store.most <= 16
    assert all((tmp_path / "target" / path.name).read_bytes() == path.read_bytes() for path in source.iterdir())


def test_snapshots_are_read_several_at_a_time_and_once(tmp_path: Path) -> None:
    store = Counting(tmp_path / "repository")
    names = [saved(Repository.create(store, PASSWORD), filled(tmp_path / "source", 0))]
    repository = Repository.open(store, PASSWORD)
    names += [saved(repository, filled(tmp_path / "source", seed, 1000)) for seed in range(1, 12)]
    again = Repository.open(store, PASSWORD)
    store.most = store.asked = 0

    assert list(again.snapshots()) == names
    assert 4 <= store.most <= 8
    assert store.asked == 12
    assert list(again.snapshots()) == names
    again.forget(names[3])
    assert list(again.snapshots()) == [*names[:3], *names[4:]]
    assert store.asked == 12


class Lagging(FolderStore):
    """Lists what was there ``lag`` seconds ago; by their names objects are found, and not found, at once."""

    lag = 0.2

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._changes: list[tuple[float, str, ObjectInfo | None]] = []

    def write(self, key: str, data: Iterable[bytes], *, only_if: str | None = None) -> ObjectInfo:
        info = super().write(key, data, only_if=only_if)
        self._changes.append((time.monotonic(), key, info))
        return info

    def delete(self, key: str) -> None:
        super().delete(key)
        self._changes.append((time.monotonic(), key, None))

    def walk(self, prefix: str = "") -> Iterator[ObjectInfo]:
        until, listed = time.monotonic() - self.lag, dict[str, ObjectInfo]()
        for when, key, info in list(self._changes):
            if when <= until and key.startswith(prefix):
                listed.pop(key, None)
                if info is not None:
                    listed[key] = info
        return iter([listed[key] for key in sorted(listed)])


@pytest.mark.parametrize("seed", range(2))
def test_a_store_whose_listings_lag_loses_nothing(tmp_path: Path, seed: int) -> None:
    rng, store, place = random.Random(seed), Lagging(tmp_path / "repository"), tmp_path / "repository"
    Repository.create(store, PASSWORD)
    time.sleep(store.lag)
    hosts = [Repository.open(store, PASSWORD) for _ in "12"]
    kept: dict[str, int] = {}

    busy = 0
    for number in range(25):
        host, verb = rng.choice(hosts), rng.choice(("save", "save", "forget", "prune", "wait"))
        try:
            if verb == "save":
                kept[saved(host, filled(tmp_path / "source", number % 9, 300_000))] = number % 9
            elif verb == "forget" and len(kept) > 3:
                name = rng.choice(sorted(kept))
                host.forget(name)
                del kept[name]
            elif verb == "prune":
                prune(host, grace=store.lag * 3)
            else:
                time.sleep(rng.uniform(0, store.lag * 2))
        except Busy:
            busy += 1

    time.sleep(store.lag)
    assert len(kept) >= 3
    assert busy < 5
    assert Repository.open(store, PASSWORD).snapshots().keys() == kept.keys()
    assert seeds(hosts[0], kept, tmp_path / "target") == list(kept.values())
    checked(place)
