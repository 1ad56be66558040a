"""A volume of a real CephFS: what is written is in the cluster, and what happens when it is full, away or closed."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.full import goes_on, overflow
from tests.guest.plugin import Plugin
from tests.guest.test_remote import everything_told
from tests.journeys.ceph import MONITOR, USER, Ceph
from tests.journeys.lab import Lab

from orlop.testing.machine import Machine
from orlop.testing.waiting import eventually

pytestmark = [pytest.mark.feature("D8"), pytest.mark.timeout(240)]
OPTIONS = {"driver": "ceph", "monitors": MONITOR}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Machine(tmp_path_factory.mktemp("ceph") / "ceph", "ceph") as machine:
        yield machine


@pytest.fixture(scope="module")
def ceph(machine: Machine) -> Ceph:
    cluster = Ceph(machine)
    cluster.start()
    return cluster


@pytest.fixture(scope="module")
def served(machine: Machine) -> Lab:
    """orlop's daemon on the cluster's machine, without an engine."""
    lab = Lab(machine)
    lab.serve()
    return lab


@pytest.fixture
def plugin(served: Lab, ceph: Ceph) -> Iterator[Plugin]:
    """The daemon, as an engine speaks to it; after a test there are no volumes, no programs, no complaints."""
    plugin = Plugin(served)
    yield plugin
    plugin.clean()
    assert plugin.mounts() == []
    assert not served.out("pgrep 'ceph-fuse|bindfs' || true")
    assert plugin.check() == "all is well"


def keyed(ceph: Ceph) -> dict[str, str]:
    """Options that the cluster opens to."""
    return {**OPTIONS, "user": USER, "key": f"file:{ceph.key}"}


@pytest.mark.parametrize("opened_by", ["a key", "none"])
def test_files_go_to_the_cluster_and_come_back(ceph: Ceph, plugin: Plugin, opened_by: str) -> None:
    options = keyed(ceph) if opened_by == "a key" else OPTIONS
    plugin.create("all", **options)
    folder = plugin.mount("all") / opened_by
    (folder / "sub").mkdir(parents=True)
    (folder / "sub/file").write_text("text")
    plugin.unmount("all")

    plugin.create("part", **options, path=f"/{opened_by}/sub")
    seen = (plugin.mount("part") / "file").read_text()
    plugin.unmount("part")

    assert seen == "text"


def test_a_use_shorter_than_the_client_needs_to_look_around_loses_nothing(ceph: Ceph, plugin: Plugin) -> None:
    plugin.create("data", **OPTIONS)
    with slow_remounts(ceph.machine, seconds=1):
        (plugin.mount("data") / "short").write_text("text")
        plugin.unmount("data")

    seen = (plugin.mount("data") / "short").read_text()
    plugin.unmount("data")

    assert seen == "text"


@contextmanager
def slow_remounts(machine: Machine, seconds: int) -> Iterator[None]:
    """Meanwhile mount(8) takes its time on this machine."""
    script = f'#!/bin/sh\nsleep {seconds}\nexec /usr/bin/mount "$@"\n'
    machine.run(["mount", "-t", "tmpfs", "slow", "/usr/local/sbin"])
    try:
        machine.run(["install", "-m", "755", "/dev/stdin", "/usr/local/sbin/mount"], input=script)
        yield
    finally:
        machine.run(["umount", "/usr/local/sbin"])


def test_a_wrong_key_is_refused_in_time_and_shown_nowhere_and_the_right_one_opens(plugin: Plugin, ceph: Ceph) -> None:
    right, wrong = ceph.key.read_text(), ceph.ask("ceph-authtool --gen-print-key")
    key = ceph.folder / "tried"
    key.write_text(wrong)
    plugin.create("data", **{**keyed(ceph), "key": f"file:{key}"})

    said, took = plugin.refused("Mount", "data"), plugin.took
    left = (plugin.mounts(), plugin.lab.out("pgrep ceph-fuse || true"))
    key.write_text(right)
    (plugin.mount("data") / "opened").write_text("yes")
    told = {**everything_told(plugin), "answer": said.encode()}
    plugin.unmount("data")

    assert said.startswith(f"volume 'data': mount of '{MONITOR}:/' by ceph-fuse: ")
    assert "Permission denied" in said
    assert took < 20
    assert left == ([], "")
    assert [
        where for where, text in told.items() if right.strip().encode() in text or wrong.strip().encode() in text
    ] == []


def test_a_full_cluster_is_an_error_for_the_writer_and_freeing_room_heals_it(plugin: Plugin, ceph: Ceph) -> None:
    plugin.create("full", **keyed(ceph))
    place = plugin.mount("full")
    (place / "kept").write_text("kept")
    (place / "big").touch()
    ceph.fill()

    error = overflow(place / "big")
    with pytest.raises(OSError) as refused:
        (place / "another").touch()
    verbs = [plugin.ask(verb, Name="full", ID="c2")[0] for verb in ("Get", "List", "Path", "Mount", "Unmount")]
    kept = (place / "kept").read_text()
    ceph.free()
    goes_on(place, patience=60)
    plugin.unmount("full")

    assert (error, refused.value.errno) == (errno.ENOSPC, errno.EACCES), "CephFS has another word for new files"
    assert verbs == [200] * 5
    assert kept == "kept"


def test_a_cluster_that_does_not_answer_is_an_error_in_time(plugin: Plugin) -> None:
    plugin.create("away", driver="ceph", monitors="127.0.0.1:6788")

    said = plugin.refused("Mount", "away")

    assert said.startswith("volume 'away': mount of '127.0.0.1:6788:/' by ceph-fuse: no answer within ")
    assert plugin.took < 60


def test_a_cluster_that_falls_silent_holds_up_no_other_volume_and_when_it_speaks_again_all_goes_on(
    plugin: Plugin, ceph: Ceph
) -> None:
    plugin.create("used", **keyed(ceph))
    plugin.create("unused", **keyed(ceph))
    plugin.create("other")
    lab, place = plugin.lab, str(plugin.mount("used")).removeprefix(str(plugin.lab.inside("/")))
    ended = lab.folder / "ended"
    ceph.silence()

    try:
        lab.machine.spawn(["sh", "-c", f"echo sent >/{place}/file && sync /{place}/file && echo ended >{ended}"])
        refused = plugin.refused("Mount", "unused")
        waits, took = not ended.exists(), []
        for verb in ("Get", "List", "Mount", "Unmount"):
            plugin.ask(verb, Name="other", ID="c1")
            took.append(plugin.took)
    finally:
        ceph.speak()
    # The cluster may wait a minute for a client that it still believes to be there.
    eventually(ended.exists, 120)
    seen = (plugin.mount("unused") / "file").read_text()
    plugin.unmount("used")
    plugin.unmount("unused")

    assert "no answer within" in refused
    assert waits
    assert max(took) < 5
    assert seen == "sent\n"


def test_all_files_belong_to_whom_the_volume_says(plugin: Plugin, ceph: Ceph) -> None:
    owner = {"uid": "1000", "gid": "7", "filemode": "0640", "dirmode": "0750"}
    plugin.create("stored", **keyed(ceph))
    plugin.create("annas", **keyed(ceph), **owner)
    stored, annas = plugin.mount("stored"), plugin.mount("annas")

    (stored / "dir").mkdir()
    (stored / "dir/there").write_text("of the cluster's root")
    (annas / "dir/new").write_text("annas")
    shown = [shown_as(annas / name) for name in ("dir", "dir/there", "dir/new")]
    kept = [shown_as(stored / name) for name in ("dir", "dir/there", "dir/new")]
    text = (stored / "dir/new").read_text()
    plugin.unmount("annas")
    plugin.unmount("stored")

    assert shown == [(1000, 7, "0o750"), (1000, 7, "0o640"), (1000, 7, "0o640")]
    assert kept == [(0, 0, "0o755"), (0, 0, "0o644"), (0, 0, "0o644")]
    assert text == "annas"


def shown_as(path: Path) -> tuple[int, int, str]:
    """Whose it is, and what they may do."""
    found = path.stat()
    return found.st_uid, found.st_gid, oct(found.st_mode & 0o777)
