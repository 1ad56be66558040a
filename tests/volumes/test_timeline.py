"""Snapshots of a host's volumes: when one is due, who is told of it, and backups that become volumes elsewhere."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.dying import STEP

from orlop import engine
from orlop.errors import Conflict, NotFound, OrlopError, Unavailable
from orlop.snapshots import retention
from orlop.volumes import reconcile, schedule
from orlop.volumes.keeping import judge
from orlop.volumes.repositories import Place
from orlop.volumes.rewind import revive
from orlop.volumes.sources import Still
from orlop.volumes.timeline import Timeline

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
HOUR, DAY = 3600, 86_400
LATER = ("later than now: the clock was wrong, or is",)


@pytest.fixture
def host(tmp_path: Path) -> engine.Config:
    return engine.Config(root=tmp_path / "root", run=tmp_path / "run")


@pytest.fixture
def timeline(host, clock) -> Iterator[Timeline]:
    """A volume ``data`` with a file, on a host with a clock that tests set."""
    service = engine.volumes(host)
    object.__setattr__(service.host, "now", clock)
    service.create("data", {})
    (host.root / "volumes/data/_data/file").write_text("one")
    yield engine.timeline(host, service=service)
    service.state.close()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A repository elsewhere."""
    (tmp_path / "password").write_text("open")
    (tmp_path / "elsewhere").mkdir()
    return Place(str(tmp_path / "elsewhere"), f"file:{tmp_path}/password")


def made_in(timeline: Timeline, clock, moments: list[float], wish: str = "hourly") -> list[float]:
    """At which of the moments a snapshot is due, and made."""
    found = []
    for moment in moments:
        clock.now = moment
        if schedule.is_due(timeline, timeline.service.get("data"), wish):
            timeline.take("data")
            found.append(moment)
    return found


class Told:
    """Hooks that remember what happened."""

    def __init__(self, fails: bool = False):
        self.fails, self.story = fails, []

    def before(self) -> bool:
        self.story.append("before")
        if self.fails:
            raise Unavailable("no")
        return True

    def after(self) -> None:
        self.story.append("after")


class Source:
    """Files that can be still in one way."""

    def __init__(self, folder: Path, story: list[str], *, is_copy: bool, fails: bool = False):
        self.folder, self.story, self.is_copy, self.fails = folder, story, is_copy, fails

    def ahead(self):
        return None

    @contextmanager
    def still(self):
        self.story.append("still")
        if self.fails:
            raise OSError("no")
        try:
            yield Still(self.folder, "live", is_copy=self.is_copy)
        finally:
            self.story.append("over")

    def changed(self, path, fd, was):
        return None

    def settle(self, snapshot):
        self.story.append("settled")


@pytest.mark.feature("S4")
def test_a_clock_that_jumps_a_day_neither_stops_snapshots_nor_multiplies_them(timeline, clock):
    noon = 1_800_000_000 // DAY * DAY + DAY / 2
    usual = made_in(timeline, clock, [noon, noon + 60, noon + HOUR, noon + HOUR + 60])

    ahead = made_in(timeline, clock, [noon + DAY + 60 * minute for minute in range(61)])
    back = made_in(timeline, clock, [noon + 2 * HOUR + 60 * minute for minute in range(61)])
    behind = made_in(timeline, clock, [noon - DAY + 60 * minute for minute in range(61)])
    again = made_in(timeline, clock, [noon + 4 * HOUR + 60 * minute for minute in range(61)])

    assert usual == [noon, noon + HOUR]
    assert [len(each) for each in (ahead, back, behind, again)] == [2, 2, 2, 2]
    judged = judge(timeline.own("data"), retention.policy("2"), schedule.now(timeline))
    assert {each.reasons for each in judged} == {("last 1 of 2",), ("last 2 of 2",), (), LATER}


@pytest.mark.feature("S4")
def test_a_failure_is_remembered_until_a_snapshot_succeeds(timeline):
    service, row = timeline.service, timeline.service.get("data")
    schedule.failed(timeline, row, "no room")
    schedule.failed(timeline, row, "no room")

    assert service.state.snapshot(row.key) == ({}, "no room")
    assert [each.action for each in service.state.events()].count("snapshot-failed") == 1
    made, _ = timeline.take("data")
    last, error = service.state.snapshot(row.key)
    assert (last["reference"], error) == (made.reference, "")

    service.remove("data")
    service.purge(next(iter(service.state.unfinished())))
    service.create("data", {})
    assert service.state.snapshot("data") == ({}, "")


def test_data_that_nobody_needs_is_looked_for_once_a_day(timeline, clock):
    timeline.take("data")

    found = []
    for later in (0, 60, HOUR, DAY, DAY + 60):
        clock.now += later
        found.append(schedule.clean(timeline) is not None)

    assert found == [True, False, False, True, True]


def test_a_full_snapshot_believes_nothing_and_is_one_like_others(timeline):
    time.sleep(0.05)  # the kernel's clock has gone on since the file was written
    timeline.take("data")

    usual, full = timeline.take("data")[1], timeline.take("data", full=True)[1]

    assert (usual.files, usual.unchanged) == (1, 1)
    assert (full.files, full.unchanged, full.stored) == (1, 0, 0)
    assert timeline.take("data")[1].unchanged == 1


@pytest.mark.feature("S4")
@pytest.mark.parametrize(
    ("is_copy", "story"),
    [
        (True, ["before", "still", "after", "over", "settled"]),
        (False, ["before", "still", "over", "after", "settled"]),
    ],
)
def test_users_are_told_before_the_moment_and_as_soon_as_they_need_not_wait(timeline, host, is_copy, story):
    told = Told()
    source = Source(host.root / "volumes/data/_data", told.story, is_copy=is_copy)

    made, _ = timeline.save(timeline.service.get("data"), source, [], None, told)

    assert told.story == story
    assert made.how == "live+hooks"


@pytest.mark.feature("S4")
@pytest.mark.parametrize(("where", "story"), [("before", ["before", "after"]), ("still", ["before", "still", "after"])])
def test_users_are_told_that_it_is_over_when_something_fails(timeline, host, where, story):
    told = Told(fails=where == "before")
    source = Source(host.root / "volumes/data/_data", told.story, is_copy=True, fails=True)

    with pytest.raises((Unavailable, OSError), match="no"):
        timeline.save(timeline.service.get("data"), source, [], None, told)

    assert told.story == story
    assert timeline.all() == []


@pytest.mark.feature("S3")
def test_a_backup_becomes_a_volume_of_a_host_that_never_saw_it(timeline, host, place, tmp_path):
    backups = engine.timeline(host, place, timeline.service, make=True)
    made, _ = backups.take("data")
    other = engine.timeline(engine.Config(root=tmp_path / "other", run=tmp_path / "run2"), place)

    revive(other, other.find("data@latest"), "new", {}, {"team": "blue"})

    assert (tmp_path / "other/volumes/new/_data/file").read_text() == "one"
    row = other.service.get("new")
    assert (row.labels, row.options["from"]) == ({"team": "blue"}, f"data@{made.id}")
    with pytest.raises(Conflict, match="exists"):
        revive(other, other.find("data@latest"), "new", {}, {})
    assert timeline.service.state.snapshot("data")[0]["repository"] == place.address


def test_a_repository_elsewhere_is_made_only_if_that_is_said(timeline, host, place):
    with pytest.raises(NotFound, match=r"no repository at .*elsewhere'; 'orlop backup --init' makes one"):
        engine.timeline(host, place, timeline.service).all()


REVIVE = (
    STEP
    + """
from pathlib import Path
from orlop import engine
from orlop.volumes.repositories import Place
from orlop.volumes.rewind import revive
config = engine.Config(root=Path({root!r}), run=Path({run!r}), step=step)
timeline = engine.timeline(config, Place({address!r}, {password!r}))
revive(timeline, timeline.find("data@latest"), "new", {{}}, {{}})
print(seen)
"""
)


@pytest.mark.feature("S3")
def test_a_restore_that_is_killed_at_any_step_leaves_all_of_the_volume_or_none(timeline, host, place, tmp_path):
    engine.timeline(host, place, timeline.service, make=True).take("data")
    ended = 0
    for number in range(1, 20):
        config = engine.Config(root=tmp_path / f"other{number}", run=tmp_path / "run2")
        names = {"root": str(config.root), "run": str(config.run), "address": place.address}
        code = REVIVE.format(number=number, password=place.password, **names)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        ended += 1

        service = engine.volumes(config)
        reconcile.reconcile(service)
        files = config.root / "volumes/new/_data/file"
        if [row.name for row in service.all()] == ["new"]:
            assert files.read_text() == "one"
        else:
            again = engine.timeline(config, place, service)
            revive(again, again.find("data@latest"), "new", {}, {})
            assert files.read_text() == "one"
        service.state.close()

    assert ended >= 4


TAKE = """
import os, signal
from pathlib import Path
from orlop import engine
from orlop.objects.files import FileStore
seen, write = 0, FileStore.write
def killed(self, key, *args, **kwargs):
    global seen
    seen += 1
    if seen == {number}:
        os.kill(os.getpid(), signal.SIGKILL)
    return write(self, key, *args, **kwargs)
FileStore.write = killed
engine.timeline(engine.Config(root=Path({root!r}), run=Path({run!r}))).take("data")
"""


@pytest.mark.feature("S1")
def test_a_snapshot_that_is_killed_at_any_object_is_there_or_not_and_the_next_is_whole(timeline, host, tmp_path):
    first, _ = timeline.take("data")
    ended = 0
    for number in range(1, 20):
        (host.root / "volumes/data/_data/file").write_text(f"version {number}")
        code = TAKE.format(number=number, root=str(host.root), run=str(host.run))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        ended += 1

    reconcile.reconcile(timeline.service)
    made, saved = timeline.take("data")

    assert ended >= 4  # the lock, packs, an index, the snapshot
    assert saved.is_complete
    timeline.restore(first, tmp_path / "first")
    timeline.restore(made, tmp_path / "now")
    assert (tmp_path / "first/file").read_text() == "one"
    assert (tmp_path / "now/file").read_text() == f"version {number}"


ROLLBACK = """
import os, signal
from pathlib import Path
from orlop import engine
from orlop.objects.files import FileStore
from orlop.volumes.rewind import rollback
seen, write, read = 0, FileStore.write, FileStore.read
def counted(verb):
    def killed(self, *args, **kwargs):
        global seen
        seen += 1
        if seen == {number}:
            os.kill(os.getpid(), signal.SIGKILL)
        return verb(self, *args, **kwargs)
    return killed
timeline = engine.timeline(engine.Config(root=Path({root!r}), run=Path({run!r})))
found = timeline.find("data@{wanted}")
FileStore.write, FileStore.read = counted(write), counted(read)
rollback(timeline, "data", found)
"""


@pytest.mark.feature("S1")
def test_a_rollback_that_is_killed_anywhere_is_done_by_doing_it_again_and_loses_nothing(timeline, host, tmp_path):
    folder = host.root / "volumes/data/_data"
    for number in range(40):
        (folder / str(number)).write_bytes(os.urandom(100_000))
    old = _content(folder)
    wanted, _ = timeline.take("data")
    for number in range(20):
        (folder / str(number)).write_text("new")
    (folder / "more").write_text("new")
    new = _content(folder)
    ended = 0
    for number in range(1, 60, 3):
        code = ROLLBACK.format(number=number, wanted=wanted.id, root=str(host.root), run=str(host.run))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        reconcile.reconcile(timeline.service)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        ended += 1

    assert ended >= 4
    assert _content(folder) == old
    # What it was is in the first snapshot that a rollback made before it touched anything.
    before = next(each for each in timeline.own("data") if each.notes == (f"before rollback to {wanted.short}",))
    timeline.restore(before, tmp_path / "before")
    assert _content(tmp_path / "before") == new


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_damaged_backup_makes_no_volume(timeline, host, place, tmp_path):
    engine.timeline(host, place, timeline.service, make=True).take("data")
    for pack in Path(place.address).glob("data/*/*"):
        pack.unlink()
    other = engine.timeline(engine.Config(root=tmp_path / "other", run=tmp_path / "run2"), place)

    with pytest.raises(OrlopError, match="missing"):
        revive(other, other.find("data@latest"), "new", {}, {})

    assert other.service.all() == []
