import errno
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest
from tests.volumes.bucket.test_driver import Host

from orlop.errors import NoSpace, Unavailable
from orlop.testing.waiting import eventually
from orlop.volumes.bucket import heads, lease
from orlop.volumes.bucket.keeper import Keeper
from orlop.volumes.driver import Volume

pytestmark = [
    pytest.mark.part("D9"),
    pytest.mark.skipif(os.geteuid() != 0, reason="filesystems need root"),
]
TTL = 3
DATA = Volume("data", "bucket", {"size": "300m", "sync": "1", "lease": str(TTL)})


@pytest.fixture
def hosts(tmp_path):
    """Makes hosts that share a bucket, with a keeper each."""
    (tmp_path / "bucket").mkdir()
    made = []

    def host(name: str, *, kept: bool = True) -> Host:
        host = Host(tmp_path, tmp_path / "bucket", name, volume=DATA)
        host.use.clock = lease.Clock()
        if kept:
            keep(host)
        made.append(host)
        return host

    yield host
    for each in made:
        for session in each.use.sessions.all():
            each.use.sessions.end(session)
        each.mounter.unmount(each.mounts / DATA.key)


def keep(host: Host) -> None:
    threading.Thread(target=Keeper(host.use).run, daemon=True).start()


def head(host: Host) -> str:
    return heads.look(host.use.backend({}).store, "data").snapshot


def refused(file: Path) -> int:
    """The error's number of writing to it; 0 if that worked."""
    try:
        file.write_text("y")
    except OSError as error:
        return error.errno or 0
    return 0


def unreachable(host: Host) -> None:
    """The store answers this host no more."""

    class Silent:
        def __getattr__(self, name):
            raise Unavailable("the store does not answer")

    host.use.backend({}).store = Silent()


def test_a_lease_is_renewed_and_what_changes_is_shipped_while_it_is_used(hosts):
    host = hosts("one")
    host.driver.create(DATA)
    (host.mount() / "file").write_text("x")

    eventually(lambda: head(host) != "")
    first = head(host)
    time.sleep(TTL * 1.5)
    assert host.session().phase == "using"
    (host.mounts / "data/file").write_text("y")
    eventually(lambda: head(host) != first)

    assert host.use.sessions.is_kept


def test_what_does_not_change_is_not_shipped_again(hosts):
    host = hosts("one")
    host.driver.create(DATA)
    (host.mount() / "file").write_text("x")
    eventually(lambda: head(host) != "")
    time.sleep(2.5)

    before = head(host)
    time.sleep(3)

    assert head(host) == before


@pytest.mark.feature("P10")
def test_a_writer_that_cannot_renew_is_stopped_before_another_host_may_write(hosts):
    one, other = hosts("one"), hosts("other")
    one.driver.create(DATA)
    folder = one.mount()
    with open(folder / "log", "wb", buffering=0) as log:
        log.write(b"shipped\n")
        eventually(lambda: head(one) != "")
        written, stopped = [], threading.Event()

        def write() -> None:
            while not stopped.is_set():
                try:
                    log.write(b"x")
                    written.append(time.monotonic())
                except OSError:
                    return
                time.sleep(0.01)

        writer = threading.Thread(target=write)
        writer.start()
        unreachable(one)
        taken = other.mount()
        at = time.monotonic()
        time.sleep(0.5)
        stopped.set()
        writer.join()

        assert max(written) < at
        assert one.session().phase == "lost"
    assert (taken / "log").read_bytes().startswith(b"shipped")
    other.unmount()


@pytest.mark.feature("P10")
def test_a_host_that_was_frozen_is_stopped_when_it_wakes(hosts, monkeypatch):
    one = hosts("one")
    one.driver.create(DATA)
    folder = one.mount()
    (folder / "file").write_text("x")
    eventually(lambda: head(one) != "")
    now = one.use.clock.now

    # It has slept for a minute, and the store does not answer yet: whether another host has the lease cannot be known.
    unreachable(one)
    monkeypatch.setattr(one.use, "clock", lease.Clock())
    for session in one.use.sessions.all():
        one.use.sessions.change(session, lost_at=now() - 60)

    eventually(lambda: refused(folder / "file") == errno.EIO)
    assert one.session().phase == "lost"


@pytest.mark.feature("P11")
def test_a_keeper_that_starts_after_the_lease_has_ended_goes_on_with_it_if_nobody_took_it(hosts):
    one = hosts("one", kept=False)
    one.driver.create(DATA)
    folder = one.mount()
    (folder / "file").write_text("x")
    one.use.sessions.change(one.session(), lost_at=one.use.clock.now() - 60)

    keep(one)

    eventually(lambda: head(one) != "")
    assert one.session().phase == "using"
    assert refused(folder / "file") == 0


@pytest.mark.feature("P10")
@pytest.mark.parametrize("taken", [True, False])
def test_a_keeper_that_starts_after_the_lease_has_ended_stops_the_writer_if_another_may_have_it(hosts, taken):
    one, other = hosts("one", kept=False), hosts("other")
    one.driver.create(DATA)
    folder = one.mount()
    if taken:
        other.mount()
    else:
        unreachable(one)
    one.use.sessions.change(one.session(), lost_at=one.use.clock.now() - 60)

    keep(one)

    eventually(lambda: refused(folder / "file") == errno.EIO)
    assert one.session().phase == "lost"


@pytest.mark.feature("S5")
def test_what_shipments_leave_is_pruned_while_they_go_on(hosts, monkeypatch):
    monkeypatch.setattr("orlop.volumes.bucket.keeper._TIDY", 2.0)
    host = hosts("one")
    host.driver.create(DATA)
    folder = host.mount()
    store, most = host.use.backend({}).store, 0

    for number in range(14):
        before = head(host)
        (folder / "file").write_text(str(number))
        eventually(lambda before=before: head(host) != before)
        most = max(most, len(list(store.walk("repository/snapshots/"))))
    host.unmount()

    live = host.use.backend({}).repository.indexes.look().packs()
    assert most <= 3
    assert len(live) < 14
    assert (host.mount() / "file").read_text() == "13"


def test_a_second_keeper_ends_at_once(hosts):
    host = hosts("one")
    host.driver.create(DATA)
    host.mount()
    eventually(lambda: host.use.sessions.is_kept)

    begun = time.monotonic()
    Keeper(host.use).run()

    assert time.monotonic() - begun < 1


def test_a_bucket_without_room_is_told_and_nothing_is_lost(hosts, tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", tmp_path / "bucket"], check=True)
    try:
        host = hosts("one")
        host.driver.create(DATA)
        folder = host.mount()
        (folder / "first").write_bytes(os.urandom(4 << 20))
        eventually(lambda: head(host) != "")
        shipped = head(host)
        # Room for a lease, and for no pack.
        with (tmp_path / "bucket/rest").open("wb", buffering=0) as rest:
            rest.truncate(0)
            os.posix_fallocate(rest.fileno(), 0, 15 << 20)
        (folder / "second").write_bytes(os.urandom(12 << 20))

        eventually(lambda: "no space" in str(host.driver.status(DATA).get("Trouble")))
        host.mounter.unmount(folder)
        with pytest.raises(NoSpace):
            host.driver.detach(DATA)
        assert head(host) == shipped
        (tmp_path / "bucket/rest").unlink()
        second = (host.mount() / "second").read_bytes()
        eventually(lambda: head(host) != shipped)
        host.unmount()

        other = hosts("other")
        assert (other.mount() / "second").read_bytes() == second
        assert "Trouble" not in other.driver.status(DATA)
        other.unmount()
    finally:
        subprocess.run(["umount", "-l", tmp_path / "bucket"], check=True)
