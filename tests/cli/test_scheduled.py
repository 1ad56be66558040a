"""``orlop snapshot run``: what labels ask for, whenever it is started."""

import json
import os
import time
from pathlib import Path

import pytest

from orlop import engine

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")


@pytest.fixture
def files(orlop, root) -> Path:
    """The files of a volume ``data``, which wants a snapshot every month."""
    orlop("volume", "create", "data", "--label", "orlop.snapshot.schedule=monthly")
    return root / "volumes/data/_data"


def listed(orlop) -> list[str]:
    return orlop("snapshot", "ls", "-q").stdout.split()


def status(orlop) -> dict[str, object]:
    return json.loads(orlop("volume", "inspect", "data").stdout)[0]["Status"]


@pytest.mark.feature("S4")
def test_what_is_due_is_made_once_and_what_no_policy_keeps_goes(orlop, files, root, tmp_path):
    orlop("volume", "create", "other")
    config = engine.Config(root=root, run=tmp_path / "run")
    timeline = engine.timeline(config)
    for days in (42, 41, 40):
        object.__setattr__(timeline.service.host, "now", lambda days=days: time.time() - days * 86_400)
        timeline.take("data")
    old = listed(orlop)
    orlop("volume", "update", "data", "--label", "orlop.snapshot.keep=2")

    planned = orlop("snapshot", "run", "--dry-run").stdout
    nothing_yet = listed(orlop)
    told = orlop("snapshot", "run").stdout.splitlines()
    again = orlop("snapshot", "run").stdout

    assert planned == "would make a snapshot of data: monthly, and this period has none\n"
    assert nothing_yet == old
    assert listed(orlop)[0] == old[2]
    assert told == [
        f"{listed(orlop)[1]} was made: monthly (unused)",
        *(f"{each} was forgotten: its volume's policy does not keep it" for each in old[:2]),
    ]
    assert again == ""


@pytest.mark.feature("S4")
def test_a_failure_is_told_shown_and_forgotten_when_a_snapshot_succeeds(orlop, files, root):
    (root / "snapshots").write_text("in the way")

    failed = orlop("snapshot", "run", status=1)

    assert "orlop: snapshot of volume 'data': " in failed.stderr
    assert str(root / "snapshots") in status(orlop)["LastSnapshotError"]
    assert "snapshot-failed data" in orlop("system", "events").stdout
    (root / "snapshots").unlink()
    told = orlop("snapshot", "run").stdout
    (made,) = listed(orlop)
    assert told == f"{made} was made: monthly (unused)\n"
    assert status(orlop)["LastSnapshot"]["reference"] == made
    assert "LastSnapshotError" not in status(orlop)


def test_a_label_that_makes_no_sense_keeps_no_other_volume_from_its_snapshot(orlop, files):
    orlop("volume", "create", "bad", "--label", "orlop.snapshot.schedule=often")

    failed = orlop("snapshot", "run", status=1)

    assert "orlop: snapshot of volume 'bad': volume 'bad': schedule 'often' is none of" in failed.stderr
    assert len(listed(orlop)) == 1


def test_two_do_not_run_at_once(orlop, files, root, tmp_path):
    service = engine.volumes(engine.Config(root=root, run=tmp_path / "run"))

    with service.lock("@snapshot run"):
        refused = orlop("snapshot", "run", status=1)

    assert "has not ended" in refused.stderr
    assert listed(orlop) == []
