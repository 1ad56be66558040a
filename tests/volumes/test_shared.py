"""Folders of a filesystem that many hosts have mounted: hosts are drivers, threads and processes on one folder."""

import json
import multiprocessing
import os
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from orlop.errors import Busy, Conflict, Corrupt, InUse, Invalid, NoSpace, NotFound, Unavailable
from orlop.mount import Mount
from orlop.testing.drivers import ListedDriverContract
from orlop.testing.process import stand_still
from orlop.volumes.driver import Listed, Volume, VolumeDriver
from orlop.volumes.shared import SharedDriver
from orlop.volumes.shared_folder import LEFT, SIGN

spawned = multiprocessing.get_context("spawn")
SFTP = "/usr/lib/openssh/sftp-server"


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """The folder at which all hosts have the filesystem."""
    folder = tmp_path / "shared"
    (folder / SIGN).mkdir(parents=True)
    return folder


@pytest.fixture
def driver(shared: Path) -> SharedDriver:
    return SharedDriver(str(shared))


def data(**options: str) -> Volume:
    return Volume("data", "shared", options, {}, created="2026-01-02T03:04:05Z")


def on(shared: Path) -> set[str]:
    """The volumes' folders."""
    return {path.name for path in shared.iterdir()} - {SIGN}


def left(shared: Path) -> list[Path]:
    """What is being made or deleted."""
    return list((shared / SIGN).glob("*/*"))


class Contract(ListedDriverContract):
    options = {"uid": "1000", "gid": "7", "mode": "0750", "backing": "shared"}
    refused = {
        "uid": "root",
        "gid": "-1",
        "mode": "77777",
        "backing": "relocatable",
        "perfmode": "maxio",
        "ebstype": "io1",
        "iops": "1000",
        "size": "10",
    }


@pytest.mark.part("P8")
class TestContract(Contract):
    @pytest.fixture
    def driver(self, shared: Path) -> VolumeDriver:
        return SharedDriver(str(shared))


@pytest.fixture
def over_sftp(shared: Path, tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """The same folder through sshfs and a server for it: a filesystem with the answers of a network's."""
    ssh, there = tmp_path / "ssh", tmp_path / "there"
    ssh.write_text(f"#!/bin/sh\nexec {SFTP}\n")
    ssh.chmod(0o755)
    there.mkdir()
    argv = ["sshfs", "-f", "-o", f"ssh_command={ssh},dcache_timeout=1", f"nas:{shared}", str(there)]
    program = subprocess.Popen(argv)
    try:
        while not there.joinpath(SIGN).exists():
            assert program.poll() is None
            time.sleep(0.02)
        yield there, program
    finally:
        program.kill()
        program.wait()
        subprocess.run(["umount", "-l", str(there)], check=True)


@pytest.mark.skipif(not os.path.exists(SFTP), reason="openssh-sftp-server is not installed")
class TestOverSftp(Contract):
    @pytest.fixture
    def driver(self, over_sftp: tuple[Path, object]) -> VolumeDriver:
        return SharedDriver(str(over_sftp[0]))


# the setting, and a filesystem that is not there


def test_an_unset_setting_is_named_with_what_it_is_for() -> None:
    driver = SharedDriver("")

    with pytest.raises(Unavailable, match=r"ORLOP_SHARED is not set.*every host has mounted the same filesystem"):
        driver.create(data())
    assert isinstance(driver, Listed)
    assert list(driver.found()) == []


@pytest.mark.parametrize("verb", ["create", "remove", "attach", "found"])
def test_a_filesystem_that_is_not_mounted_takes_no_data(tmp_path: Path, verb: str) -> None:
    root_disk = tmp_path / "mnt"
    root_disk.mkdir()
    driver = SharedDriver(str(root_disk))

    with pytest.raises(Unavailable, match=f"mount the filesystem.*mkdir {root_disk}/{SIGN}"):
        list(driver.found()) if verb == "found" else getattr(driver, verb)(data())

    assert list(root_disk.iterdir()) == []


def test_a_path_that_is_not_absolute_is_refused() -> None:
    with pytest.raises(Unavailable, match="'mnt/efs'; it must be an absolute path"):
        SharedDriver("mnt/efs").create(data())


@pytest.mark.skipif(not os.path.exists(SFTP), reason="openssh-sftp-server is not installed")
def test_a_server_that_does_not_answer_is_given_up(over_sftp: tuple[Path, subprocess.Popen[bytes]]) -> None:
    there, program = over_sftp
    driver = SharedDriver(str(there))
    driver.create(data())
    stand_still(program.pid)
    began = time.monotonic()

    with pytest.raises(Unavailable, match="does not answer"):
        driver.attach(data())
    with pytest.raises(Unavailable, match="does not answer"):
        list(driver.found())

    assert time.monotonic() - began < 15
    program.send_signal(signal.SIGCONT)
    assert driver.attach(data())


# options


@pytest.mark.part("P8")
def test_owner_and_mode_are_the_new_roots_and_stay_what_users_make_of_them(driver: SharedDriver, shared: Path) -> None:
    volume = data(uid="1000", gid="7", mode="02770", backing="shared")
    driver.create(volume)
    root = shared / "data/data"
    first = root.stat()
    os.chown(root, 5, 6)

    driver.create(volume)

    assert (first.st_uid, first.st_gid, stat.S_IMODE(first.st_mode)) == (1000, 7, 0o2770)
    assert (root.stat().st_uid, root.stat().st_gid) == (5, 6)
    assert list(driver.attach(volume)) == [Mount.bind(root)]


@pytest.mark.part("P8")
@pytest.mark.parametrize(
    ("option", "value", "instead"),
    [
        ("backing", "relocatable", "the driver 'bucket'"),
        ("backing", "cloud", "knows 'shared'"),
        ("size", "10", "relocatable.*'bucket'"),
        ("ebstype", "gp2", "relocatable.*'bucket'"),
        ("iops", "100", "relocatable.*'bucket'"),
        ("perfmode", "maxio", "where the filesystem is made"),
    ],
)
def test_what_cloudstor_had_for_other_volumes_is_refused_with_where_it_belongs(
    driver: SharedDriver, shared: Path, option: str, value: str, instead: str
) -> None:
    with pytest.raises(Invalid, match=f"option '{option}'.*{instead}"):
        driver.create(data(**{option: value}))

    assert on(shared) == set()


def test_other_options_than_on_the_first_host_are_refused_and_harm_nothing(driver: SharedDriver, shared: Path) -> None:
    driver.create(data(uid="1000"))

    with pytest.raises(Conflict, match=r"'data' is in '.*' already, with option 'uid' '1000', not 'none'"):
        driver.create(data())
    driver.create(data(uid="1000", backing="shared"))
    driver.remove(data(uid="7"))

    assert on(shared) == {"data"}


@pytest.mark.parametrize("name", ["", ".", "..", "../data", "a/b", "/etc", ".orlop-shared", ".hidden", "a\0b"])
def test_no_name_leads_out_of_the_folder(driver: SharedDriver, shared: Path, tmp_path: Path, name: str) -> None:
    hostile = Volume(name, "shared", {}, {}, "../../key")

    for verb in (driver.create, driver.attach, driver.remove):
        with pytest.raises(Invalid, match="cannot be the name of a folder"):
            verb(hostile)

    assert list(tmp_path.iterdir()) == [shared]
    assert on(shared) == set()


def test_a_name_as_long_as_a_name_can_be_comes_and_goes(driver: SharedDriver, shared: Path) -> None:
    volume = replace(data(), name="n" * 255)
    driver.create(volume)

    driver.remove(volume)

    assert on(shared) == set()
    assert left(shared) == []


def test_a_full_filesystem_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    # Itself, its sign, the folder of new volumes, and of a new one the folder and the root: no definition.
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=5", "none", str(full)], check=True)
    try:
        (full / SIGN).mkdir()

        with pytest.raises(NoSpace, match=r"volume\.json': no space left on device"):
            SharedDriver(str(full)).create(data())

        assert on(full) == set()
        assert left(full) == []
    finally:
        subprocess.run(["umount", str(full)], check=True)


# many hosts


def _create(shared: str, name: str) -> None:
    SharedDriver(shared).create(Volume(name, "shared", {"uid": "7"}))


def _work(shared: str, number: int) -> str:
    """One host that creates and removes one name again and again; what it saw that must not be."""
    driver, volume = SharedDriver(shared), data()
    for _ in range(20):
        try:
            driver.create(volume) if number % 2 else driver.remove(volume)
        except Busy:
            continue
        for found in driver.found():
            if found.options != volume.options:
                return f"half a definition: {found}"
    return ""


def test_many_hosts_that_create_one_name_at_once_make_one_folder(shared: Path) -> None:
    with ProcessPoolExecutor(6, spawned) as hosts:
        names = [f"v{number}" for number in range(20)]
        for name in names:
            list(hosts.map(_create, [str(shared)] * 6, [name] * 6))

    assert on(shared) == set(names)
    assert left(shared) == []


def test_hosts_that_create_and_remove_at_once_see_a_whole_volume_or_none(shared: Path) -> None:
    with ProcessPoolExecutor(4, spawned) as hosts:
        seen = list(hosts.map(_work, [str(shared)] * 4, range(4)))

    driver = SharedDriver(str(shared))
    driver.create(data())
    driver.remove(data())
    assert seen == [""] * 4
    assert on(shared) == set()


def test_every_host_finds_what_any_has_made_and_nothing_else(
    driver: SharedDriver, shared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    driver.create(replace(data(uid="7"), labels={"team": "a"}))
    driver.create(replace(data(), name="broken"))
    (shared / "broken/volume.json").write_text("{")
    (shared / "somebodys").mkdir()
    (shared / "file").write_text("")

    (found,) = SharedDriver(str(shared)).found()

    assert (found.name, found.options, found.labels) == ("data", {"uid": "7"}, {"team": "a"})
    assert found.created == "2026-01-02T03:04:05Z"
    assert "broken/volume.json' makes no sense" in caplog.text


def test_any_host_removes_it_for_all_and_those_that_still_know_it_are_told(driver: SharedDriver, shared: Path) -> None:
    other = SharedDriver(str(shared))
    driver.create(data())
    other.create(data())
    (shared / "data/data/file").write_text("precious")

    other.remove(data())

    assert on(shared) == set()
    assert left(shared) == []
    with pytest.raises(NotFound, match="another host removed it"):
        driver.attach(data())
    driver.remove(data())


def test_what_is_no_volume_is_neither_taken_nor_deleted(driver: SharedDriver, shared: Path) -> None:
    (shared / "data").mkdir()
    (shared / "data/file").write_text("precious")

    with pytest.raises(Conflict, match="is there and is no volume; move it away"):
        driver.create(data())
    driver.remove(data())

    assert (shared / "data/file").read_text() == "precious"
    assert left(shared) == []


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"volume": "other", "options": {}, "labels": {}, "created": ""}'])
def test_a_definition_that_makes_no_sense_is_never_deleted(driver: SharedDriver, shared: Path, text: str) -> None:
    driver.create(data())
    (shared / "data/volume.json").write_text(text)

    for verb in (driver.create, driver.attach, driver.remove):
        with pytest.raises(Corrupt, match="move the folder away"):
            verb(data())

    assert on(shared) == {"data"}


def test_a_definition_can_be_read_by_people(driver: SharedDriver, shared: Path) -> None:
    driver.create(replace(data(uid="7"), labels={"team": "a"}))

    assert json.loads((shared / "data/volume.json").read_text()) == {
        "volume": "data",
        "options": {"uid": "7"},
        "labels": {"team": "a"},
        "created": "2026-01-02T03:04:05Z",
    }


@pytest.mark.parametrize("bind", [False, True], ids=["another filesystem", "the same filesystem"])
def test_a_removal_stops_before_a_mount_inside_the_volume(
    driver: SharedDriver, shared: Path, tmp_path: Path, bind: bool
) -> None:
    driver.create(data())
    inside, source = shared / "data/data/inside", tmp_path / "source"
    inside.mkdir()
    source.mkdir()
    how = ["--bind", str(source)] if bind else ["-t", "tmpfs", "none"]
    subprocess.run(["mount", *how, str(inside)], check=True)
    try:
        (inside / "precious").write_text("kept")

        with pytest.raises(InUse, match="inside' is mounted"):
            driver.remove(data())

        assert on(shared) == {"data"}
        assert (inside / "precious").read_text() == "kept"
    finally:
        subprocess.run(["umount", str(inside)], check=True)


# kills


def _live(shared: str, place: str) -> None:
    """A host that creates and removes a volume, and is killed on the way."""

    def step(at: str) -> None:
        if at == place:
            os.kill(os.getpid(), signal.SIGKILL)

    driver = SharedDriver(shared, step)
    driver.create(data(uid="7"))
    Path(shared, "data/data/file").write_text("old")
    driver.remove(data(uid="7"))


@pytest.mark.parametrize(
    ("place", "there"),
    [
        ("make: begun", False),
        ("make: root", False),
        ("make: written", False),
        ("make: made", True),
        ("remove: begun", True),
        ("remove: gone", False),
    ],
)
def test_a_host_that_is_killed_leaves_a_whole_volume_or_none(shared: Path, place: str, there: bool) -> None:
    dying = spawned.Process(target=_live, args=(str(shared), place))
    dying.start()
    dying.join()
    driver = SharedDriver(str(shared))
    found = [volume.options for volume in driver.found()]
    driver.create(data(uid="7"))
    driver.remove(data(uid="7"))

    assert dying.exitcode == -signal.SIGKILL
    assert found == ([{"uid": "7"}] if there else [])
    assert on(shared) == set()
    # What a removal has left goes with the next one of that name.
    assert left(shared) == [] or place.startswith("make")


@pytest.mark.parametrize("kind", ["new", "removed"])
@pytest.mark.parametrize("cleaner", ["create", "remove"])
def test_what_killed_hosts_have_left_is_cleaned_when_it_is_old(
    driver: SharedDriver, shared: Path, kind: str, cleaner: str
) -> None:
    old, fresh = (shared / SIGN / kind / name for name in ("other.1", "other.2"))
    for folder in (old, fresh):
        (folder / "data").mkdir(parents=True)
    os.utime(old, (0, time.time() - LEFT - 60))

    getattr(driver, cleaner)(data())

    assert left(shared) == [fresh]


def test_a_removed_volume_has_gone_for_all_before_its_files_are_deleted(shared: Path) -> None:
    seen: list[set[str]] = []

    def step(at: str) -> None:
        if at == "remove: gone":
            seen.append(on(shared))

    driver = SharedDriver(str(shared), step)
    driver.create(data())
    (shared / "data/data/file").write_text("much")

    driver.remove(data())

    assert seen == [set()]
    assert left(shared) == []
