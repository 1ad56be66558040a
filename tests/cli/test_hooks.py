"""Hooks of snapshots where the engine is not there; what a real one does is in `tests/journeys/test_snapshots.py`."""

import os

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")


@pytest.fixture
def silent(tmp_path) -> dict[str, str]:
    """The environment of a host whose engine does not answer."""
    return {"ORLOP_NO_ENGINE": "0", "ORLOP_ENGINE": str(tmp_path / "nowhere.sock")}


@pytest.fixture
def hooked(orlop):
    """A volume ``data`` with a hook; more labels are given as they are on the command line."""

    def make(*labels: str) -> None:
        words = [word for label in ("orlop.snapshot.pre=flush", *labels) for word in ("--label", label)]
        orlop("volume", "create", "data", *words)

    return make


@pytest.mark.part("S4")
def test_no_snapshot_is_made_if_nobody_can_be_told(orlop, hooked, silent):
    hooked()

    refused = orlop("snapshot", "create", "data", env=silent, status=1)

    assert "does not answer" in refused.stderr
    assert "no snapshot was made (label orlop.snapshot.hooks=ignore" in refused.stderr
    assert orlop("snapshot", "ls", "-q").stdout == ""


@pytest.mark.part("S4")
def test_one_is_made_all_the_same_if_the_label_says_so_and_what_failed_is_told(orlop, hooked, silent):
    hooked("orlop.snapshot.hooks=ignore")

    told = orlop("snapshot", "create", "data", env=silent)

    assert "does not answer" in told.stderr
    assert orlop("snapshot", "ls", "-q").stdout == told.stdout


def test_where_no_engine_is_nobody_has_to_be_told(orlop, hooked):
    hooked()

    made = orlop("snapshot", "create", "data").stdout

    assert orlop("snapshot", "ls", "-q").stdout == made
