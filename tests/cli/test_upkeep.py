"""``orlop snapshot prune`` and ``check``."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")


@pytest.fixture
def files(orlop, root) -> Path:
    """The files of a volume ``data``."""
    orlop("volume", "create", "data", "--label", "orlop.snapshot.keep=2")
    return root / "volumes/data/_data"


@pytest.fixture
def snapshots(orlop, files) -> list[str]:
    """Three snapshots of ``data``, each with a megabyte of its own."""
    found = []
    for number in range(3):
        (files / "file").write_bytes(os.urandom(1_000_000))
        found.append(orlop("snapshot", "create", "data").stdout.strip())
        del number
    return found


def listed(orlop) -> list[str]:
    return orlop("snapshot", "ls", "-q").stdout.split()


def packs(root: Path) -> int:
    return sum(path.stat().st_size for path in root.glob("snapshots/data/*/*"))


@pytest.mark.feature("S4", "S5")
def test_what_the_label_does_not_keep_goes_and_its_room_is_free_after_a_second_prune(orlop, snapshots, root):
    shown = orlop("snapshot", "prune", "--dry-run").stdout.splitlines()
    before = packs(root)
    gone = orlop("snapshot", "prune", "--grace", "0s").stdout
    after_one = packs(root)
    # Marks are as old as the store's clock says, which may be a moment behind.
    told = (orlop("snapshot", "prune", "--grace", "0s").stdout for _ in range(10))
    freed = next((text for text in told if "space: 0B" not in text), "nothing")

    assert [line.split()[0] for line in shown] == ["SNAPSHOT", *snapshots]
    assert [line.split(None, 3)[2:] for line in shown[1:]] == [
        ["forget"],
        ["keep", "last 2 of 2"],
        ["keep", "last 1 of 2"],
    ]
    assert snapshots[0] in gone
    assert snapshots[1] not in gone
    assert listed(orlop) == snapshots[1:]
    assert after_one >= before
    assert "Total reclaimed space: 1" in freed
    assert packs(root) < before - 900_000
    restic = ["restic", "-r", root / "snapshots", "--password-file", root / "snapshots.key", "--no-cache"]
    subprocess.run([*restic, "check", "--read-data"], check=True, capture_output=True)


@pytest.mark.feature("S4")
def test_a_dry_run_does_nothing_and_keep_overrules_the_label(orlop, snapshots):
    told = orlop("snapshot", "prune", "data", "--keep", "1", "--dry-run", "--format", "json").stdout.splitlines()

    assert [json.loads(line)["Verdict"] for line in told] == ["forget", "forget", "keep"]
    assert listed(orlop) == snapshots
    orlop("snapshot", "prune", "data", "--keep", "1")
    assert listed(orlop) == snapshots[2:]


def test_a_volume_for_which_nothing_is_said_keeps_all_and_so_does_one_that_has_gone(orlop, snapshots, files):
    orlop("volume", "create", "other")
    kept = [orlop("snapshot", "create", "other").stdout.strip() for _ in range(3)]
    orlop("volume", "rm", "data")

    shown = orlop("snapshot", "prune", "--dry-run").stdout
    orlop("snapshot", "prune")

    assert shown.count("no policy") == 6
    assert set(listed(orlop)) == {*snapshots, *kept}


def test_what_others_keep_in_the_repository_stays(orlop, snapshots, root, tmp_path):
    restic = ["restic", "-r", root / "snapshots", "--password-file", root / "snapshots.key", "--no-cache"]
    (tmp_path / "theirs").write_text("theirs")
    for host, *tags in (("here",), ("elsewhere", "--tag", "orlop.volume=data"), ("here", "--tag", "orlop.bucket=b")):
        backup = ["backup", tmp_path / "theirs", "--host", host, *tags]
        subprocess.run([*restic, *backup], check=True, capture_output=True)

    orlop("snapshot", "prune", "--keep", "1")

    left = json.loads(subprocess.run([*restic, "snapshots", "--json"], check=True, capture_output=True).stdout)
    assert len(left) == 3 + 1


@pytest.mark.parametrize(
    ("words", "complaint"),
    [(["--keep", "7x"], "'7x' is no rule"), (["nothing"], "no snapshot of a volume 'nothing'")],
)
def test_what_makes_no_sense_deletes_nothing(orlop, snapshots, words, complaint):
    refused = orlop("snapshot", "prune", *words, status=1)

    assert complaint in refused.stderr
    assert listed(orlop) == snapshots


def test_a_label_that_makes_no_sense_keeps_all_and_is_named(orlop, snapshots):
    orlop("volume", "update", "data", "--label", "orlop.snapshot.keep=lots")

    refused = orlop("snapshot", "prune", status=1)

    assert "volume 'data': 'lots' is no rule" in refused.stderr
    assert listed(orlop) == snapshots


@pytest.mark.feature("S5")
def test_a_bad_object_is_named_and_repaired_from_a_copy(orlop, snapshots, root, tmp_path):
    shutil.copytree(root / "snapshots", tmp_path / "copy")
    pack = max(root.glob("snapshots/data/*/*"), key=lambda path: path.stat().st_size)
    damaged = bytearray(pack.read_bytes())
    damaged[1000] ^= 1
    pack.write_bytes(damaged)

    assert orlop("snapshot", "check").stdout == "all is well\n"
    found = orlop("snapshot", "check", "--read-data", status=1)
    repaired = orlop("snapshot", "check", "--read-data", "--copy", str(tmp_path / "copy"))

    assert pack.name in found.stderr
    assert found.stdout == "1 bad object(s) found\n"
    assert f"{pack.name}: its content has another name (repaired)" in repaired.stdout
    assert orlop("snapshot", "check", "--read-data").stdout == "all is well\n"
