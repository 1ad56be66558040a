"""Snapshots of a database that is written all the time: by schedule, with hooks, and back."""

import json
import sys
from collections.abc import Callable, Iterator

import pytest
from tests.journeys.lab import Lab

from orlop.testing.waiting import eventually

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def orlop(lab: Lab) -> Callable[..., str]:
    """The command on the lab's machine; what it prints."""
    return lambda words, **how: lab.out(f"{sys.executable} -m orlop {words} --root {lab.root}", **how)


@pytest.fixture
def daemon(lab: Lab) -> Iterator[Callable[[str], None]]:
    """Starts the lab's daemon anew, with how often it looks which snapshots are due."""

    def restart(interval: str) -> None:
        lab.kill_orlop()
        lab.serve(ORLOP_SERVE_SNAPSHOT_INTERVAL=interval)

    yield restart
    restart("60s")


@pytest.fixture
def without_snapshots(lab: Lab, orlop) -> Iterator[None]:
    """No snapshot of an earlier test, and none left."""
    yield
    for reference in orlop("snapshot ls -q").split():
        orlop(f"snapshot rm {reference}")


@pytest.mark.feature("S1", "S4")
def test_a_database_in_use_goes_back_to_a_snapshot_that_its_schedule_made(lab, daemon, without_snapshots, orlop):
    daemon("1h")
    labels = {
        "schedule": "monthly",
        "keep": "5",
        "pre": "psql -qc checkpoint && echo pre >>/tmp/hooks",
        "post": "echo post >>/tmp/hooks",
    }
    given = " ".join(f"--label 'orlop.snapshot.{name}={text}'" for name, text in labels.items())
    run = "-v pgdata:/var/lib/postgresql/data -e POSTGRES_PASSWORD=secret postgres"
    lab.sh(f"docker volume create -d orlop -o size=320m {given} pgdata")
    # Only Docker knows these labels.
    lab.sh(f"docker run -d --name db1 {run}")
    _wait(lab, "db1")
    lab.sh('docker exec db1 psql -qc "create table dummy (id int primary key)"')
    insert = 'i=0; while :; do i=$((i+1)); psql -qc "insert into dummy values ($i)" && echo $i; done'
    log = lab.home / "acknowledged"
    writer = lab.start(f"docker exec db1 sh -c '{insert}' >{log} 2>/dev/null")
    eventually(lambda: log.exists() and log.read_text().count("\n") > 20)

    before = log.read_text().count("\n")
    daemon("1s")
    eventually(lambda: orlop("snapshot ls -q"))
    made = orlop("snapshot ls -q").splitlines()[0]
    told = json.loads(orlop(f"snapshot inspect {made}"))[0]
    status = json.loads(orlop("volume inspect pgdata"))[0]["Status"]
    hooks = lab.out("docker exec db1 cat /tmp/hooks").split()
    eventually(lambda: log.read_text().count("\n") > before + 20)
    lab.sh("docker kill -s KILL db1; docker rm db1")
    writer.wait()
    orlop(f"volume rollback pgdata {made.partition('@')[2]}")
    lab.sh(f"docker run -d --name db2 {run}")
    _wait(lab, "db2")

    rows = [int(row) for row in lab.out('docker exec db2 psql -Atc "select id from dummy order by id"').split()]
    assert rows == list(range(1, len(rows) + 1))
    assert before <= len(rows) < log.read_text().count("\n")
    lab.sh("docker exec db2 psql -qc 'reindex table dummy'")
    assert told["How"] == "shadow+hooks"
    assert told["Notes"] == ["scheduled"]
    assert hooks[:2] == ["pre", "post"]
    assert status["LastSnapshot"]["reference"].startswith("pgdata@")
    assert "LastSnapshotError" not in status


@pytest.mark.feature("S4")
def test_a_hook_that_fails_stops_the_snapshot_and_says_what_the_container_said(lab, without_snapshots, orlop):
    lab.sh("docker volume create -d orlop --label 'orlop.snapshot.pre=echo the lock is held; exit 3' data")
    lab.sh("docker run -d --name user --init -v data:/data busybox sleep 600")

    refused = lab.refused(f"{sys.executable} -m orlop snapshot create data --root {lab.root}")
    nothing = orlop("snapshot ls -q")
    orlop("volume update data --label orlop.snapshot.hooks=ignore")
    made = orlop("snapshot create data")
    orlop("volume update data --label orlop.snapshot.pre=true --label 'orlop.snapshot.post=exit 4'")
    late = lab.refused(f"{sys.executable} -m orlop snapshot create data --root {lab.root}")
    lab.sh("docker stop -t 1 user")
    unused = orlop("snapshot create data")

    assert "hook 'pre' in container user (" in refused
    assert "ended with status 3: the lock is held; no snapshot was made" in refused
    assert nothing == ""
    assert "hook 'post' in container user" in late
    hows = dict(line.split() for line in orlop("snapshot ls --format '{{.Reference}} {{.How}}'").splitlines())
    assert (hows[made], hows[unused], len(hows)) == ("live", "unused", 3)


@pytest.mark.feature("S4")
def test_containers_are_paused_where_a_label_says_so(lab, without_snapshots, orlop):
    lab.sh("docker volume create -d orlop --label orlop.snapshot.pause=true data")
    count = "i=0; while :; do i=$((i+1)); echo $i >/data/a; echo $i >/data/b; done"
    lab.sh(f"docker run -d --name user --init -v data:/data busybox sh -c '{count}'")

    for _ in range(3):
        orlop("snapshot create data")
        orlop(f"snapshot restore data@latest --to {lab.home}/out")

        one, other = ((lab.home / "out" / name).read_text() for name in "ab")
        assert int(one or 0) - int(other or 0) in (0, 1) or "" in (one, other)
    assert orlop("snapshot ls --format '{{.How}}'").split() == ["paused"] * 3
    assert lab.out("docker inspect -f '{{.State.Status}}' user") == "running"


def _wait(lab: Lab, container: str) -> None:
    eventually(lambda: lab.sh(f"docker exec {container} pg_isready -h 127.0.0.1", check=False).returncode == 0)
