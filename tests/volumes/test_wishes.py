"""What labels of volumes say about snapshots, and which snapshots a policy keeps."""

from datetime import UTC, datetime, timedelta

import pytest

from orlop.errors import Invalid
from orlop.snapshots import retention
from orlop.snapshots.documents import SnapshotFile
from orlop.volumes.keeping import judge
from orlop.volumes.timeline import Snapshot
from orlop.volumes.wishes import Wishes, wishes

NOON = datetime(2027, 5, 12, 12, tzinfo=UTC)


def snapshot(id_: str, age: timedelta, *, complete: bool = True) -> Snapshot:
    tags = [] if complete else ["orlop.incomplete"]
    return Snapshot(id_, "data", NOON - age, "live", "here", (), SnapshotFile("", "", tags=tags))


def kept(snapshots: list[Snapshot], policy: str) -> dict[str, tuple[str, ...]]:
    return {each.snapshot.id: each.reasons for each in judge(snapshots, retention.policy(policy), NOON)}


def test_labels_of_others_wish_nothing():
    assert wishes("data", {"team": "blue", "orlop.snapshots": "x"}) == Wishes()


def test_every_label_is_understood():
    said = {
        "orlop.snapshot.schedule": "6h",
        "orlop.snapshot.keep": "7d",
        "orlop.snapshot.pause": "TRUE",
        "orlop.snapshot.pre": "flush",
        "orlop.snapshot.post": "go on",
        "orlop.snapshot.hooks": "ignore",
    }

    assert wishes("data", said) == Wishes("6h", retention.policy("7d"), True, "flush", "go on", True)


@pytest.mark.parametrize(
    ("label", "text"),
    [("schedule", "often"), ("keep", "7x"), ("pause", "maybe"), ("hooks", "no"), ("keeps", "7d")],
)
def test_a_label_that_makes_no_sense_is_named_with_its_volume(label, text):
    with pytest.raises(Invalid, match=f"volume 'data': .*{text if label != 'keeps' else label}"):
        wishes("data", {f"orlop.snapshot.{label}": text})


def test_what_a_policy_does_not_keep_goes_and_the_others_say_why():
    hours = [snapshot(str(number), timedelta(hours=number)) for number in range(4)]

    assert kept(hours, "2h") == {"0": ("hourly 1 of 2",), "1": ("hourly 2 of 2",), "2": (), "3": ()}
    assert set(kept(hours, "").values()) == {("no policy",)}


@pytest.mark.feature("S4")
def test_one_that_is_not_complete_never_takes_the_place_of_one_that_is():
    snapshots = [
        snapshot("whole", timedelta(hours=3)),
        snapshot("torn", timedelta(hours=2), complete=False),
        snapshot("early", timedelta(hours=4), complete=False),
    ]

    assert kept(snapshots, "1") == {
        "whole": ("last 1 of 1",),
        "torn": ("not complete, but none after it is",),
        "early": (),
    }


def test_one_that_is_later_than_now_never_takes_the_place_of_one_that_is_not():
    snapshots = [snapshot("real", timedelta(hours=1)), snapshot("tomorrow", -timedelta(days=1))]

    found = kept(snapshots, "1")

    assert found == {"real": ("last 1 of 1",), "tomorrow": ("later than now: the clock was wrong, or is",)}
