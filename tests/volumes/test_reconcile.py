"""What is decided about a host, from facts alone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from orlop.state import Row
from orlop.testing.paper import PaperMounter
from orlop.volumes.reconcile import Action, Facts, decide, rebuild, reconcile
from orlop.volumes.service import VolumeService

WELL = Facts("boot-2", 1000.0, 60.0, [], {}, frozenset(), frozenset())


def row(phase: str, removed: float | None = None) -> Row:
    return Row("data", "data", "local", {}, {}, "2027-01-01T00:00:00Z", phase, removed)


def verbs(facts: Facts) -> list[tuple[str, str]]:
    return [(action.verb, action.key) for action in decide(facts)]


def test_nothing_is_done_where_all_is_well() -> None:
    busy = replace(WELL, attached={"a": "boot-2"}, mounted=frozenset("a"), used=frozenset("a"))

    assert decide(WELL) == []
    assert decide(busy) == []


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (replace(WELL, unfinished=[row("creating")]), [("finish", "data")]),
        (replace(WELL, unfinished=[row("removing", 999.0)]), [("purge", "data")]),
        (replace(WELL, unfinished=[row("trashed", 939.0)]), [("purge", "data")]),
        (replace(WELL, unfinished=[row("trashed", 941.0)]), []),
        (replace(WELL, attached={"a": "boot-1"}), [("forget", "a")]),
        (replace(WELL, attached={"a": "boot-2"}), [("settle", "a")]),
        (replace(WELL, mounted=frozenset("a")), [("unmount", "a")]),
    ],
)
def test_what_is_half_true_is_made_true(facts: Facts, expected: list[tuple[str, str]]) -> None:
    assert verbs(facts) == expected


def test_each_decision_says_why() -> None:
    assert decide(replace(WELL, attached={"a": "boot-1"})) == [
        Action("forget", "a", "it was attached before the host was started anew")
    ]


def test_a_second_reconcile_finds_nothing_to_do(service: VolumeService, tmp_path: Path) -> None:
    service.create("data", {})
    with service.state.change() as change:
        change.replace(replace(service.get("data"), phase="creating"))

    assert [action.verb for action in reconcile(service)] == ["finish"]
    assert reconcile(service) == []
    assert service.get("data")


def test_a_lost_state_file_is_rebuilt_from_what_lies_beside_the_data(
    reopened: Callable[..., VolumeService], tmp_path: Path, mounter: PaperMounter
) -> None:
    service = reopened()
    service.create("kept", {"mode": "0700"}, {"team": "a"})
    service.create("gone", {})
    service.remove("gone")
    service.create("unreadable", {})
    (tmp_path / "volumes/unreadable/volume.json").write_text("{")
    before = service.get("kept")
    service.state.close()
    for file in tmp_path.glob("state.db*"):
        file.unlink()

    service = reopened()
    found = {path.parent.name: row for path, row in rebuild(service)}

    assert service.get("kept") == before
    assert [row.name for row in service.all()] == ["kept"]
    assert service.restore("gone").name == "gone"
    assert found["unreadable"] is None
