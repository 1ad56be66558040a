"""The state file: damage is refused by name, a full disk changes nothing, two processes see one truth."""

import os
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from orlop.errors import Conflict, Corrupt, NoSpace, Unavailable
from orlop.state import Holder, Row, State


def row(name: str = "data", phase: str = "ready") -> Row:
    return Row("", name, "local", {"mode": "0700"}, {"a": "b"}, "2027-01-01T00:00:00Z", phase)


def insert(state: State, *rows: Row) -> None:
    with state.change() as change:
        for new in rows:
            change.insert(new, lambda key: False)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An ext4 of 8 MiB."""
    image, place = tmp_path / "disk.img", tmp_path / "disk"
    place.mkdir()
    subprocess.run(["truncate", "-s", "8M", str(image)], check=True)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_what_was_remembered_is_there_when_opened_again(tmp_path: Path) -> None:
    first = State(tmp_path / "state.db")
    insert(first, row())
    with first.change() as change:
        change.attach("data", "boot")
        change.hold("data", Holder("d/0", "c1", 7, 8), "boot", 1.5)
    first.close()

    again = State(tmp_path / "state.db")

    assert again.live("data").options == {"mode": "0700"}
    assert again.attached() == {"data": "boot"}
    (hold,) = again.holds("data")
    assert (hold.holder, hold.count, hold.since) == (Holder("d/0", "c1", 7, 8), 1, 1.5)
    again.close()


def test_two_states_on_one_file_see_each_other(tmp_path: Path) -> None:
    one, two = State(tmp_path / "state.db"), State(tmp_path / "state.db")

    insert(one, row("a"))
    insert(two, row("b"))

    assert [found.name for found in one.ready()] == ["a", "b"] == [found.name for found in two.ready()]
    one.close(), two.close()


def test_a_change_that_fails_has_not_happened(tmp_path: Path) -> None:
    state = State(tmp_path / "state.db")

    with pytest.raises(RuntimeError, match="midway"), state.change() as change:
        change.insert(row(), lambda key: False)
        raise RuntimeError("midway")

    assert state.ready() == []
    state.close()


def test_a_name_is_taken_once_among_the_living_and_its_key_is_never_used_twice(tmp_path: Path) -> None:
    state = State(tmp_path / "state.db")
    insert(state, row("data", "trashed"), row("data"))

    with pytest.raises(Conflict, match="'data' exists already"):
        insert(state, row("data"))

    assert state.live("data").key == "data~2"
    state.close()


def test_readers_do_not_wait_for_a_change(tmp_path: Path) -> None:
    state = State(tmp_path / "state.db")
    insert(state, row())
    changing, looked = threading.Event(), threading.Event()

    def change() -> None:
        with state.change() as open_change:
            open_change.delete("data")
            changing.set()
            looked.wait(10)

    thread = threading.Thread(target=change)
    thread.start()
    assert changing.wait(10)

    assert state.live("data") is not None
    looked.set()
    thread.join()
    assert state.live("data") is None
    state.close()


@pytest.mark.parametrize("damage", ["garbage", "middle", "truncated"])
def test_a_damaged_file_is_refused_by_name_with_the_way_out(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "state.db"
    state = State(path)
    insert(state, *(row(f"v{number}") for number in range(400)))
    state.close()
    content = bytearray(path.read_bytes())
    if damage == "garbage":
        content = bytearray(os.urandom(4096))
    elif damage == "middle":
        content[8192:24576] = os.urandom(16384)
    else:
        del content[len(content) // 2 :]
    path.write_bytes(content)

    with pytest.raises(Corrupt, match=rf"'{path}' is damaged .*orlop system check --repair"):
        State(path).check()


def test_a_newer_file_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()

    with pytest.raises(Unavailable, match="newer orlop"):
        State(path)


def test_a_full_disk_refuses_the_change_and_keeps_the_rest(small_disk: Path) -> None:
    state = State(small_disk / "state.db")
    insert(state, row("before"))
    # Without a buffer, which closing would write once more.
    with (small_disk / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space"):
        while True:
            filler.write(bytes(4096))

    with pytest.raises(NoSpace, match="no space left for state file"):
        for number in range(2000):
            insert(state, row(f"v{number}"))
    kept = [found.name for found in state.ready()]
    (small_disk / "filler").unlink()
    insert(state, row("after"))

    assert "before" in kept
    assert [found.name for found in state.ready()] == sorted([*kept, "after"])
    state.check()
    state.close()


def test_a_read_only_folder_is_named(small_disk: Path) -> None:
    state = State(small_disk / "state.db")
    insert(state, row())
    state.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)

    with pytest.raises(Unavailable, match=r"state.db' cannot be used"):
        State(small_disk / "state.db")


def test_events_are_kept_up_to_a_limit(tmp_path: Path) -> None:
    state = State(tmp_path / "state.db")

    with state.change(durable=False) as change:
        for number in range(10_600):
            change.note(float(number), "mount", "data", {"container": str(number)})

    found = state.events()
    assert found[-1].details == {"container": "10599"}
    assert 10_000 <= len(found) <= 10_256
    assert [event.seq for event in state.events(found[-3].seq)] == [found[-2].seq, found[-1].seq]
    state.close()


def test_looking_for_a_half_removed_volume_reads_neither_the_others_nor_the_trash(tmp_path: Path) -> None:
    state = State(tmp_path / "state.db")
    asked: list[str] = []
    state._reader.set_trace_callback(asked.append)

    assert state.removing("data") == []

    state._reader.set_trace_callback(None)
    plan = state._reader.execute(f"EXPLAIN QUERY PLAN {asked[0]}").fetchall()
    assert "USING INDEX unfinished (phase=?)" in plan[0][3]
    state.close()


def test_the_file_of_an_older_orlop_is_taken_over(tmp_path: Path) -> None:
    with closing(State(tmp_path / "state.db")) as state, state.change() as change:
        made = change.insert(Row("", "data", "local", {}, {}, "", "ready", in_place=True), lambda key: False)
    with closing(sqlite3.connect(tmp_path / "state.db")) as db:
        db.execute("ALTER TABLE volumes DROP COLUMN in_place")
        db.execute("DROP TABLE snapshots")
        db.execute("ALTER TABLE attached DROP COLUMN trouble")
        db.execute("PRAGMA user_version = 1")

    with closing(State(tmp_path / "state.db")) as state:
        with state.change() as change:
            change.snapshot_error("data", "no room")
            change.attach("data", "boot")
            change.trouble("data", "dead")

        assert (state.snapshot("data"), state.trouble("data")) == (({}, "no room"), "dead")
        assert state.live("data") == replace(made, in_place=False)
