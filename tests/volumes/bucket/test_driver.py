import os
import time
from pathlib import Path

import pytest
from tests.volumes.test_sources import fill

from orlop import engine
from orlop.errors import Conflict, InUse, NotFound, Unavailable
from orlop.kernel.mounter import KernelMounter
from orlop.snapshots import indexcache
from orlop.state import Holder
from orlop.volumes import image
from orlop.volumes.bucket import use
from orlop.volumes.bucket.driver import BucketDriver
from orlop.volumes.bucket.lease import Clock
from orlop.volumes.bucket.use import Use
from orlop.volumes.driver import Volume

pytestmark = [
    pytest.mark.part("D9"),
    pytest.mark.skipif(os.geteuid() != 0, reason="filesystems need root"),
]
DATA = Volume("data", "bucket", {"size": "300m"}, created="2026-01-01T00:00:00Z")


class Skipped:
    """A clock that sleeps in no time."""

    def __init__(self) -> None:
        self.now = time.clock_gettime(time.CLOCK_BOOTTIME)

    def clock(self) -> Clock:
        return Clock(lambda: self.now, self.sleep, time.time)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Away:
    """A store that does not answer."""

    def __getattr__(self, name):
        raise Unavailable("the store does not answer")


class Host:
    """One host with the driver, which mounts where a service would."""

    def __init__(self, folder: Path, bucket: Path, name: str, step=str, volume: Volume = DATA) -> None:
        self.volume = volume
        self.root, self.mounts, self.name = folder / name, folder / name / "mounts", name
        self.mounts.mkdir(parents=True, exist_ok=True)
        self.mounter, self.time = KernelMounter(), Skipped()
        told = {"ORLOP_BUCKET": str(bucket), "ORLOP_BUCKET_PASSWORD": "x"}
        resolve = lambda option, reference: b"a password"  # noqa: E731
        folders = self.root / "copies", self.root / "run", self.mounts
        self.use = Use(*folders, told, resolve, boot=name, clock=self.time.clock(), step=step)
        self.driver = BucketDriver(self.use, lambda: None)

    def mount(self) -> Path:
        target = self.mounts / self.volume.key
        self.mounter.mount(self.driver.attach(self.volume), target)
        return target

    def unmount(self) -> None:
        self.mounter.unmount(self.mounts / self.volume.key)
        self.driver.detach(self.volume)

    def die(self) -> None:
        """As after a power cut: nothing in memory is left, and nobody says goodbye."""
        self.mounter.unmount(self.mounts / self.volume.key)
        for path in (self.root / "run").glob("*"):
            path.unlink()

    def session(self):
        return self.use.sessions.get(self.volume.key)


@pytest.fixture
def hosts(tmp_path):
    """Makes hosts that share a bucket."""
    (tmp_path / "bucket").mkdir()
    made = []

    def host(name: str, step=str) -> Host:
        made.append(Host(tmp_path, tmp_path / "bucket", name, step))
        return made[-1]

    yield host
    for each in made:
        each.mounter.unmount(each.mounts / DATA.key)


@pytest.fixture
def one(hosts):
    host = hosts("one")
    host.driver.create(DATA)
    return host


@pytest.fixture
def other(hosts):
    return hosts("other")


@pytest.mark.feature("P8")
def test_files_follow_the_volume_to_another_host_and_back(one, other):
    folder = one.mount()
    (folder / "file").write_text("first")
    (folder / "same").write_bytes(os.urandom(2 << 20))
    one.unmount()

    folder = other.mount()
    assert (folder / "file").read_text() == "first"
    (folder / "file").write_text("second")
    (folder / "new").symlink_to("file")
    other.unmount()

    folder = one.mount()
    assert (folder / "new").read_text() == "second"
    assert len((folder / "same").read_bytes()) == 2 << 20
    one.unmount()
    assert one.driver.status(DATA).get("Kept") is None


@pytest.mark.feature("P10")
def test_only_one_host_at_a_time_has_it(one, other):
    one.mount()
    keeping = one.use.backend({}).store

    def renewing(seconds):
        """While the other waits, the first goes on renewing."""
        from orlop.volumes.bucket.lease import acquire

        other.time.now += seconds
        acquire(keeping, "data", one.use.owner(one.session().token), one.use.clock)

    other.use.clock = Clock(lambda: other.time.now, renewing, time.time)
    with pytest.raises(InUse, match="in use on host"):
        other.mount()

    one.unmount()
    other.mount()
    other.unmount()


@pytest.mark.feature("P10")
def test_a_host_that_lost_the_lease_cannot_ship_and_keeps_what_it_has(one, other):
    folder = one.mount()
    (folder / "file").write_text("shipped")
    one.use.ship(one.session())
    (folder / "file").write_text("never shipped")
    stale = one.session()

    assert (other.mount() / "file").read_text() == "shipped"
    with pytest.raises(Conflict, match="another host has volume 'data'"):
        one.use.ship(stale)
    one.unmount()
    other.unmount()

    (kept,) = one.driver.status(DATA)["Kept"]

    with image.opened(Path(kept)) as root:
        assert (root / "data/file").read_text() == "never shipped"
    assert (one.mount() / "file").read_text() == "shipped"


@pytest.mark.feature("P11")
def test_a_host_whose_processes_were_all_dead_for_longer_than_the_lease_goes_on_if_no_other_had_it(one):
    # As a managed plugin that was disabled by force, while containers went on to write.
    (one.mount() / "file").write_text("never shipped")
    epoch = one.session().epoch
    one.time.now += 3600

    one.driver.attach(DATA)

    assert one.session().epoch == epoch
    assert one.session().lost_at > one.time.now
    one.unmount()
    assert one.driver.status(DATA).get("Kept") is None
    assert (one.mount() / "file").read_text() == "never shipped"


@pytest.mark.feature("P11")
def test_a_host_that_lost_the_lease_to_nobody_goes_on_from_what_it_had(one):
    # The store was away for longer than the lease: the writer had to be stopped, as another host might have come.
    (one.mount() / "file").write_text("never shipped")
    os.sync()
    one.use.stop(one.session(), "lost", "the store did not answer")
    one.mounter.unmount(one.mounts / DATA.key)

    folder = one.mount()

    assert (folder / "file").read_text() == "never shipped"
    assert one.driver.status(DATA).get("Kept") is None
    one.unmount()


def test_whether_a_late_lease_is_over_is_not_guessed_while_the_store_is_away(one, monkeypatch):
    (one.mount() / "file").write_text("never shipped")
    one.time.now += 3600
    backend = one.use.backend({})
    with monkeypatch.context() as away:
        away.setattr(backend, "store", Away())
        with pytest.raises(Unavailable, match="does not answer"):
            one.driver.attach(DATA)

    one.driver.attach(DATA)

    assert (one.mounts / DATA.key / "file").read_text() == "never shipped"


@pytest.mark.feature("P10", "P11")
def test_a_host_whose_processes_were_all_dead_is_stopped_if_another_had_the_volume(one, other):
    folder = one.mount()
    (folder / "file").write_text("shipped")
    one.use.ship(one.session())
    (folder / "late").write_text("never shipped")
    os.sync()
    (other.mount() / "file").write_text("the other's")
    other.unmount()
    one.time.now += 3600
    writer = (folder / "file").open("a")

    one.driver.attach(DATA)

    with pytest.raises(OSError, match="Input/output"):
        writer.write("too late"), writer.flush(), os.fsync(writer.fileno())
    with pytest.raises(OSError, match="Input/output"):
        writer.close()
    one.mounter.unmount(one.mounts / DATA.key)
    assert (one.mount() / "file").read_text() == "the other's"
    (kept,) = one.driver.status(DATA)["Kept"]
    with image.opened(Path(kept)) as root:
        assert (root / "data/late").read_text() == "never shipped"


@pytest.mark.feature("P11")
def test_after_a_power_cut_the_host_goes_on_from_what_it_had(one):
    folder = one.mount()
    (folder / "file").write_text("shipped")
    one.use.ship(one.session())
    (folder / "file").write_text("not yet shipped")
    one.die()

    folder = one.mount()

    assert (folder / "file").read_text() == "not yet shipped"
    one.unmount()


def test_after_a_power_cut_and_another_host_nothing_is_lost_silently(one, other):
    folder = one.mount()
    (folder / "file").write_text("only here")
    one.die()
    (other.mount() / "file").write_text("there")
    other.unmount()

    assert (one.mount() / "file").read_text() == "there"
    assert len(one.driver.status(DATA)["Kept"]) == 1
    one.unmount()


def test_a_host_that_died_without_a_change_keeps_nothing_aside(one, other):
    (one.mount() / "file").write_text("x")
    time.sleep(0.1)  # what changed just now may have changed again
    one.unmount()
    one.mount()
    one.die()
    (other.mount() / "file").write_text("y")
    other.unmount()

    assert (one.mount() / "file").read_text() == "y"
    assert "Kept" not in one.driver.status(DATA)


@pytest.mark.feature("P10")
def test_what_a_snapshot_of_the_users_has_seen_counts_as_unshipped_all_the_same(one, other):
    folder = one.mount()
    (folder / "file").write_text("shipped")
    one.use.ship(one.session())
    (folder / "file").write_text("seen by a snapshot")
    time.sleep(0.1)
    source = one.driver.source(DATA, folder, list)
    with source.still():
        pass
    source.settle("snapshot")

    other.mount()
    one.unmount()
    other.unmount()

    assert len(one.driver.status(DATA)["Kept"]) == 1


def test_a_shipment_that_was_interrupted_counts_as_unshipped(one, other):
    (one.mount() / "file").write_text("shipped")
    one.use.ship(one.session())
    (one.mounts / "data/file").write_text("saved, never published")
    time.sleep(0.1)

    def die(name):
        if name == "bucket: saved":
            raise KeyboardInterrupt

    one.use.step = die
    with pytest.raises(KeyboardInterrupt):
        one.use.ship(one.session())
    one.use.step = str
    one.die()
    one.mount()
    one.die()
    other.mount()
    other.unmount()

    one.mount()

    assert len(one.driver.status(DATA)["Kept"]) == 1


@pytest.mark.feature("P8")
def test_a_full_volume_moves_all_the_same(one, other):
    (one.mount() / "file").write_text("first")
    one.unmount()
    folder = other.mount()
    (folder / "file").write_text("later")
    fill(folder)
    other.unmount()

    folder = one.mount()

    assert (folder / "file").read_text() == "later"
    assert len(list(folder.iterdir())) > 100


def test_only_what_changed_is_stored_again_after_a_move(one, other):
    big = os.urandom(8 << 20)
    folder = one.mount()
    (folder / "big").write_bytes(big)
    (folder / "small").write_text("1")
    one.unmount()
    folder = other.mount()
    (folder / "small").write_text("2")
    store = other.use.backend({}).store
    before = sum(info.size for info in store.walk("repository/data/"))

    other.unmount()

    grown = sum(info.size for info in store.walk("repository/data/")) - before
    assert grown < 64 << 10
    assert (one.mount() / "big").read_bytes() == big


def test_folders_that_changed_places_after_a_move_are_told_apart(one, other):
    folder = one.mount()
    for name in "ab":
        (folder / name).mkdir()
        (folder / name / "file").write_text(name)
        os.utime(folder / name / "file", (1, 1))
    one.unmount()
    folder = other.mount()
    (folder / "a").rename(folder / "c")
    (folder / "b").rename(folder / "a")
    (folder / "c").rename(folder / "b")
    other.unmount()

    folder = one.mount()

    assert [(folder / name / "file").read_text() for name in "ab"] == ["b", "a"]


@pytest.mark.feature("P3")
def test_every_host_lists_it_and_any_host_removes_it_while_nobody_uses_it(one, other):
    (one.mount() / "file").write_text("old")
    assert [volume.name for volume in other.driver.found()] == ["data"]
    one.unmount()

    other.driver.remove(DATA)

    assert list(one.driver.found()) == []
    with pytest.raises(NotFound, match="no volume 'data' in the bucket"):
        one.mount()
    other.driver.create(DATA)
    assert list(other.mount().iterdir()) == []
    other.unmount()
    assert list(one.mount().iterdir()) == []


def test_a_volume_grows_for_all_hosts(one, other):
    folder = one.mount()
    before = os.statvfs(folder).f_blocks

    one.driver.resize(Volume("data", "bucket", {"size": "500m"}), folder)

    assert os.statvfs(folder).f_blocks > before * 1.5
    one.unmount()
    assert os.statvfs(other.mount()).f_blocks > before * 1.5
    with pytest.raises(Conflict, match="not shrink"):
        other.driver.resize(DATA, None)


STEPS = ["leased", "claimed", "begun", "saved", "published", "shipped"]


@pytest.mark.feature("P11")
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_nothing_that_was_shipped_is_lost(hosts, step):
    quiet = hosts("one")
    quiet.driver.create(DATA)
    (quiet.mount() / "file").write_text("before")
    quiet.unmount()

    def die(name):
        if name == f"bucket: {step}":
            raise KeyboardInterrupt

    # A new host, so that its files have to be fetched as well.
    host = hosts("two", die)
    host.use.let_go = lambda session: None
    with pytest.raises(KeyboardInterrupt):
        (host.mount() / "file").write_text("after")
        os.sync()
        host.unmount()
    host.mounter.unmount(host.mounts / "data")

    again = hosts("two")
    seen = (again.mount() / "file").read_text()
    again.unmount()
    assert seen == ("before" if step in STEPS[:3] else "after")
    assert (quiet.mount() / "file").read_text() == seen


@pytest.mark.feature("P3")
def test_hosts_that_create_one_name_at_once_make_one_volume(hosts):
    from concurrent.futures import ThreadPoolExecutor

    made = [hosts(f"host{number}") for number in range(4)]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda host: host.driver.create(DATA), made))

    ids = {host.use.backend({}).catalog.get("data").id for host in made}
    assert len(ids) == 1
    (made[0].mount() / "file").write_text("x")
    made[0].unmount()
    assert (made[3].mount() / "file").read_text() == "x"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"size": "1m"}, "less than the 300 MiB"),
        ({"sync": "0"}, "at least 1 second"),
        ({"lease": "1"}, "at least 2 seconds"),
        ({"sync": "soon"}, "not a number"),
        ({"backing": "shared"}, "knows 'relocatable'"),
        ({"endpoint": "http://x"}, "needs 'store'"),
        ({"uid": "-1"}, "not a number"),
    ],
)
def test_options_that_make_no_sense_are_refused(hosts, options, why):
    with pytest.raises(Exception, match=why):
        hosts("one").driver.create(Volume("data", "bucket", options))


def test_another_volume_of_the_name_is_refused(one, other):
    with pytest.raises(Conflict, match="option 'size' '300m'"):
        other.driver.create(Volume("data", "bucket", {"size": "400m"}))


def test_without_a_bucket_the_driver_says_what_is_missing(tmp_path):
    driver = BucketDriver(Use(tmp_path, tmp_path, tmp_path, {}, lambda *_: b""), lambda: None)

    with pytest.raises(Unavailable, match="ORLOP_BUCKET is not set"):
        driver.create(DATA)
    assert not driver.is_set_up()


def test_a_copy_of_a_volume_that_another_host_removed_goes_and_what_was_never_shipped_stays(one, other):
    (one.mount() / "file").write_text("shipped")
    one.unmount()
    other.driver.remove(DATA)

    one.driver.leave(DATA)

    assert not one.use.copy(DATA.key).folder.exists()
    one.driver.create(DATA)
    (one.mount() / "file").write_text("never shipped")
    one.die()
    other.time.now += 60
    other.driver.remove(DATA)
    one.driver.leave(DATA)
    kept = one.driver.status(DATA)["Kept"]
    assert len(kept) == 1
    with image.opened(Path(kept[0])) as root:
        assert (root / "data/file").read_text() == "never shipped"


@pytest.fixture
def services(tmp_path, monkeypatch):
    """Two hosts that have been told of one bucket; they wait for nobody."""
    (tmp_path / "bucket").mkdir()
    (tmp_path / "password").write_text("secret")
    monkeypatch.setenv("ORLOP_BUCKET", str(tmp_path / "bucket"))
    monkeypatch.setenv("ORLOP_BUCKET_PASSWORD", f"file:{tmp_path}/password")
    monkeypatch.setattr(engine, "_keep", lambda config: None)
    monkeypatch.setattr(use, "PATIENCE", 0)
    return [engine.volumes(engine.Config(tmp_path / name, tmp_path / f"run {name}", hold_grace=0)) for name in "ab"]


@pytest.mark.feature("P10")
def test_what_an_engine_never_gave_back_is_for_other_hosts_when_it_was_unmounted_by_hand(services):
    one, other = services
    one.create("data", {"driver": "bucket", "size": "300m"})
    (one.mount("data", Holder("dockerd/0", "c1", counted=True)) / "file").write_text("written")
    assert other.everywhere.fresh(10)
    with pytest.raises(InUse, match="in use on host"):
        other.mount("data", Holder("dockerd/0", "c2"))

    one.detach("data")

    assert (other.mount("data", Holder("dockerd/0", "c2")) / "file").read_text() == "written"
    assert [event.action for event in one.state.events()] == ["create", "mount", "unmount"]
    other.detach("data")


def test_a_host_that_hears_of_the_removal_deletes_its_copy(services, tmp_path):
    one, other = services
    one.create("data", {"driver": "bucket", "size": "300m"})
    one.mount("data", Holder("docker", "c1"))
    one.unmount("data", Holder("docker", "c1"))
    (copies,) = {path.parent for path in (tmp_path / "a").rglob("image")}

    other.everywhere.fresh(10)
    other.remove("data")
    one.everywhere.fresh(10)

    assert one.all() == []
    assert not copies.exists()


def test_a_host_keeps_what_the_index_of_its_bucket_and_of_its_own_snapshots_said(services, tmp_path, monkeypatch):
    monkeypatch.setattr(indexcache, "_LEAST", 1)
    one, _ = services
    one.create("data", {"driver": "bucket", "size": "300m"})
    one.mount("data", Holder("docker", "c1"))
    one.unmount("data", Holder("docker", "c1"))
    assert len(list((tmp_path / "a/cache").glob("index-*"))) == 1

    one.create("here", {"driver": "local"})
    engine.timeline(engine.Config(tmp_path / "a", tmp_path / "run a")).take("here")

    assert len(list((tmp_path / "a/cache").glob("index-*"))) == 2
