import json
import os
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")


@pytest.fixture
def files(orlop, root) -> Path:
    """The files of a volume ``data``."""
    orlop("volume", "create", "data")
    folder = root / "volumes/data/_data"
    (folder / "sub").mkdir()
    (folder / "sub/file").write_text("one")
    (folder / "same").write_text("same")
    return folder


@pytest.fixture
def snap(orlop):
    """Makes a snapshot of ``data`` and returns its reference."""
    return lambda *more: orlop("snapshot", "create", "data", *more).stdout.strip()


@pytest.mark.feature("S1")
def test_a_snapshot_is_listed_described_and_compared_and_files_come_back(orlop, files, snap, tmp_path):
    first = snap("--note", "before the upgrade")
    (files / "sub/file").write_text("two")
    (files / "new").write_text("")
    (files / "same").unlink()
    second = snap()

    listed = [json.loads(line) for line in orlop("snapshot", "ls", "data", "--format", "json").stdout.splitlines()]
    assert [each["Reference"] for each in listed] == [first, second]
    assert (listed[0]["Notes"], listed[0]["How"]) == ("before the upgrade", "unused")
    (told,) = json.loads(orlop("snapshot", "inspect", first).stdout)
    assert (told["Files"], told["Size"]) == (2, 7)
    assert orlop("snapshot", "diff", first, second).stdout == "A /new\nD /same\nC /sub/file\n"

    orlop("snapshot", "restore", first, "sub/file", "--to", str(tmp_path / "one"))
    orlop("snapshot", "restore", first, "--to", str(tmp_path / "all"))
    assert (tmp_path / "one/file").read_text() == "one"
    assert sorted(os.listdir(tmp_path / "all")) == ["same", "sub"]


def test_a_full_snapshot_relies_on_none_before_it(orlop, files, snap):
    first, second, full = snap(), snap(), snap("--full")

    parents = [told["Parent"] for told in json.loads(orlop("snapshot", "inspect", second, full).stdout)]

    assert parents[0].startswith(first.partition("@")[2])
    assert not parents[1]
    assert orlop("snapshot", "diff", second, full).stdout == ""


@pytest.mark.feature("S1")
def test_a_volume_is_rolled_back_and_what_it_was_is_kept(orlop, files, snap):
    first = snap()
    (files / "sub/file").write_text("two")
    (files / "new").write_text("")

    assert "would let volume data" in orlop("volume", "rollback", "data", first.partition("@")[2], "--dry-run").stdout
    assert (files / "new").exists()
    told = orlop("volume", "rollback", "data", first).stdout

    assert sorted(os.listdir(files)) == ["same", "sub"]
    assert (files / "sub/file").read_text() == "one"
    kept = told.split()[-1]
    orlop("volume", "rollback", "data", kept)
    assert (files / "sub/file").read_text() == "two"


@pytest.mark.feature("S1")
@pytest.mark.parametrize("options", [[], ["-o", "size=300m"], ["-d", "local", "-o", "size=16m"]])
def test_a_volume_is_cloned_into_one_of_any_kind(orlop, files, root, tmp_path, options):
    orlop("volume", "clone", "data", "copy", *options)

    orlop("volume", "export", "copy", "-o", str(tmp_path / "tar"))
    names = subprocess.run(["tar", "tf", tmp_path / "tar"], check=True, capture_output=True, text=True).stdout.split()
    assert {name for name in names if not name.endswith("/")} == {"./same", "./sub/file"}


@pytest.mark.feature("S1")
def test_a_new_volume_begins_with_the_files_of_a_snapshot(orlop, files, snap, root):
    reference = snap()
    (files / "same").write_text("changed since")

    orlop("volume", "create", "new", "-o", f"from={reference}")
    orlop("volume", "create", "new", "-o", f"from={reference}")

    assert (root / "volumes/new/_data/same").read_text() == "same"
    refused = orlop("volume", "create", "new", "-o", "from=data@latest", status=1)
    assert "exists with option 'from'" in refused.stderr


def test_a_volume_from_a_snapshot_that_is_not_there_is_not_made(orlop, files):
    refused = orlop("volume", "create", "new", "-o", "from=data@1234", status=1)

    assert "no snapshot 'data@1234'" in refused.stderr
    assert "new" not in orlop("volume", "ls").stdout


@pytest.mark.feature("S2")
def test_stock_restic_reads_what_is_there(orlop, files, snap, root, tmp_path):
    snap()
    restic = ["restic", "-r", root / "snapshots", "--password-file", root / "snapshots.key", "--no-cache"]

    subprocess.run([*restic, "check", "--read-data"], check=True, capture_output=True)
    subprocess.run([*restic, "restore", "latest", "--target", tmp_path / "out"], check=True, capture_output=True)

    assert (tmp_path / "out/data/sub/file").read_text() == "one"


@pytest.mark.parametrize("reference", ["data@", "data@zz", "nothing@latest", "data", ""])
def test_a_reference_that_names_nothing_is_an_error(orlop, files, snap, reference):
    snap()

    refused = orlop("snapshot", "rm", reference, status=1)

    assert "no snapshot" in refused.stderr
    assert len(orlop("snapshot", "ls", "-q").stdout.split()) == 1


def test_a_forgotten_snapshot_is_listed_no_more(orlop, files, snap):
    first, second = snap(), snap()

    orlop("snapshot", "rm", first)

    assert orlop("snapshot", "ls", "-q").stdout.split() == [second]


@pytest.mark.parametrize("note", ["a,b", "a\nb", ""])
def test_a_note_that_no_tag_can_hold_is_refused_before_anything_is_read(orlop, files, note):
    refused = orlop("snapshot", "create", "data", "--note", note, status=1)

    assert "note" in refused.stderr
    assert orlop("snapshot", "ls", "-q").stdout == ""


@pytest.mark.feature("S2")
def test_another_repository_needs_its_password_by_reference(orlop, files, tmp_path):
    place = ["--repository", str(tmp_path / "elsewhere")]

    assert "password of repository" in orlop("snapshot", "ls", *place, status=1).stderr
    refused = orlop("snapshot", "ls", *place, "--password", "hunter2", status=1)
    assert "must name a secret" in refused.stderr
    assert "hunter2" not in refused.stderr


def test_names_that_are_no_utf8_and_have_line_breaks_come_back(orlop, files, snap, tmp_path):
    names = [b"line\nbreak", b"\xff\xfe", b"a\\nb"]
    for name in names:
        Path(os.fsdecode(os.fsencode(files) + b"/" + name)).write_bytes(name)
    first = snap()
    Path(os.fsdecode(os.fsencode(files) + b"/" + names[0])).write_text("x")

    orlop("snapshot", "restore", first, "--to", str(tmp_path / "out"))
    told = orlop("snapshot", "diff", first, snap()).stdout

    for name in names:
        assert Path(os.fsdecode(os.fsencode(tmp_path / "out") + b"/" + name)).read_bytes() == name
    assert told == "C '/line\\nbreak'\n"
