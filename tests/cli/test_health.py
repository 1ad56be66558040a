import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

COLUMNS = "key, name, driver, options, labels, created, phase"


@pytest.fixture
def volumes(orlop):
    """Two volumes on a sound host, one of them removed."""
    orlop("volume", "create", "data", "--label", "a=1")
    orlop("volume", "create", "gone")
    orlop("volume", "rm", "gone")


def destroy(state: Path) -> None:
    for journal in ("-wal", "-shm"):
        state.with_name(state.name + journal).unlink(missing_ok=True)
    state.write_bytes(b"nonsense" * 1000)


def test_a_sound_host_is_well_and_nothing_is_repaired(orlop, volumes):
    assert orlop("system", "check").stdout == "all is well\n"
    assert orlop("system", "check", "--repair").stdout == "all is well\n"
    assert json.loads(orlop("system", "check", "--format", "json").stdout) == {"Problems": [], "Done": []}


def test_a_damaged_state_file_is_named_and_rebuilt_from_the_definitions(orlop, volumes, root):
    destroy(root / "state.db")

    refused = orlop("volume", "ls", status=1)
    found = orlop("system", "check", status=1)
    repaired = orlop("system", "check", "--repair")

    assert f"state file '{root}/state.db' is damaged" in refused.stderr
    assert "orlop system check --repair" in refused.stderr
    assert found.stderr.startswith(f"state.db: state file '{root}/state.db' is damaged")
    assert f"done: set the damaged state file aside as '{root}/state.damaged-" in repaired.stdout
    assert "made a new one from 2 definition(s)" in repaired.stdout
    assert orlop("volume", "inspect", "-f", "{{.Labels.a}}", "data").stdout == "1\n"
    assert orlop("volume", "ls", "-q", "--trash").stdout == "gone\n"


def test_a_damaged_state_file_that_a_process_uses_is_not_replaced_under_it(orlop, volumes, root):
    code = "import sys, time; f = open(sys.argv[1]); print(flush=True); time.sleep(60)"
    destroy(root / "state.db")

    with subprocess.Popen([sys.executable, "-c", code, str(root / "state.db")], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        refused = orlop("system", "check", "--repair", status=1)
        process.kill()

    assert f"({process.pid}); stop that first" in refused.stderr
    assert "done: " in orlop("system", "check", "--repair").stdout


def test_a_definition_that_makes_no_sense_is_named_and_left_out(orlop, volumes, root):
    (root / "volumes/data/volume.json").write_text("{")

    found = orlop("system", "check", status=1)
    destroy(root / "state.db")
    repaired = orlop("system", "check", "--repair", status=1)

    path = f"'{root}/volumes/data/volume.json'"
    assert f"data: definition {path} makes no sense; correct or remove the file\n" in found.stderr
    assert f"left out {path}, which makes no sense" in repaired.stdout
    assert (root / "volumes/data/_data").is_dir()


def test_a_missing_definition_is_written_again(orlop, volumes, root):
    before = (root / "volumes/data/volume.json").read_text()
    (root / "volumes/data/volume.json").unlink()

    found = orlop("system", "check", status=1)
    repaired = orlop("system", "check", "--repair")

    assert found.stderr == "data: its definition is missing; --repair writes it again\n"
    assert repaired.stdout == "done: wrote the definition of data again\nall is well\n"
    assert (root / "volumes/data/volume.json").read_text() == before


def test_a_missing_folder_is_wrong_and_no_repair_brings_it_back(orlop, volumes, root):
    shutil.rmtree(root / "volumes/data")

    found = orlop("system", "check", "--repair", status=1)

    assert found.stderr.startswith(f"data: its folder '{root}/volumes/data' is missing")
    assert orlop("volume", "ls", "-q").stdout == "data\n"


def test_folders_that_belong_to_no_volume_are_found_and_taken_up_if_they_are_defined(orlop, volumes, root):
    (root / "volumes/stray").mkdir()
    with sqlite3.connect(root / "state.db") as db:
        db.execute("DELETE FROM volumes WHERE key = 'data'")
    db.close()

    found = json.loads(orlop("system", "check", "--format", "json", status=1).stdout)["Problems"]
    orlop("system", "check", "--repair", status=1)

    assert [problem["About"] for problem in found] == ["data", "stray"]
    assert "--repair takes it up" in found[0]["Problem"]
    assert "it has no definition; move it away" in found[1]["Problem"]
    assert orlop("volume", "ls", "-q").stdout == "data\n"
    assert (root / "volumes/stray").is_dir()


def test_half_made_and_half_removed_volumes_are_found_and_finished(orlop, volumes, root):
    with sqlite3.connect(root / "state.db") as db:
        row = ("half", "half", "local", "{}", "{}", "2026-01-01T00:00:00Z", "creating")
        db.execute(f"INSERT INTO volumes ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        db.execute("UPDATE volumes SET phase = 'removing' WHERE key = 'gone'")
    db.close()

    found = orlop("system", "check", status=1)
    repaired = orlop("system", "check", "--repair")

    assert "half: its creation was interrupted; --repair can finish it\n" in found.stderr
    assert "gone: its removal was interrupted; --repair can purge it\n" in found.stderr
    assert "done: finish half: its creation was interrupted\n" in repaired.stdout
    assert orlop("volume", "ls", "-q").stdout == "data\nhalf\n"
    assert not (root / "volumes/gone").exists()
