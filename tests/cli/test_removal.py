import json
import os
import subprocess
from pathlib import Path

import pytest

from orlop.engine import Config, volumes
from orlop.kernel.mountinfo import ours
from orlop.kernel.processes import start_time
from orlop.state import Holder


@pytest.mark.feature("V5")
def test_rm_prints_each_name_and_goes_on_after_one_that_is_not_there(orlop):
    orlop("volume", "create", "one")
    orlop("volume", "create", "two")

    removed = orlop("volume", "rm", "one", "nope", "two", status=1)

    assert removed.stdout == "one\ntwo\n"
    assert removed.stderr == "orlop: no volume 'nope'\n"
    assert orlop("volume", "ls", "-q").stdout == ""


@pytest.mark.feature("V5")
def test_rm_by_force_does_not_mind_what_is_not_there(orlop):
    done = orlop("volume", "rm", "-f", "nope")

    assert (done.stdout, done.stderr) == ("", "")


def test_a_dry_run_removes_nothing(orlop):
    orlop("volume", "create", "data")

    assert orlop("volume", "rm", "--dry-run", "data").stdout == "would remove data\n"
    assert orlop("volume", "prune", "-a", "--dry-run").stdout.startswith("Would delete Volumes:\ndata\n\nTotal")

    assert orlop("volume", "ls", "-q").stdout == "data\n"


def test_what_was_removed_is_in_the_trash_and_comes_back_also_under_another_name(orlop, root):
    orlop("volume", "create", "data", "--label", "a=1")
    (root / "volumes/data/_data/precious").write_text("kept")

    orlop("volume", "rm", "data")
    trash = json.loads(orlop("volume", "ls", "--trash", "--format", "json").stdout)
    restored = orlop("volume", "restore", "data", "--as", "new")

    assert trash["Name"] == "data"
    assert trash["RemovedAt"].endswith("Z")
    assert restored.stdout == "new\n"
    assert orlop("volume", "inspect", "-f", "{{.Labels.a}}", "new").stdout == "1\n"
    assert (root / "volumes/data/_data/precious").read_text() == "kept"
    assert orlop("volume", "ls", "-q", "--trash").stdout == ""
    assert "no volume 'data' in the trash" in orlop("volume", "restore", "data", status=1).stderr


def test_rm_with_purge_deletes_for_good(orlop, root):
    orlop("volume", "create", "data")

    assert orlop("volume", "rm", "--purge", "data").stdout == "data\n"

    assert orlop("volume", "ls", "--trash", "-q").stdout == ""
    assert list((root / "volumes").iterdir()) == []


@pytest.mark.feature("V11")
def test_prune_asks_first_and_no_means_no(orlop):
    name = orlop("volume", "create").stdout.strip()

    asked = orlop("volume", "prune", input="n\n", status=1)
    agreed = orlop("volume", "prune", input="y\n")

    warning = (
        "WARNING! This will remove anonymous local volumes not used by at least one container.\n"
        "Are you sure you want to continue? [y/N] "
    )
    assert asked.stdout.rstrip("\n") == warning.rstrip("\n")
    assert asked.stderr == "orlop: volume prune has been cancelled\n"
    assert agreed.stdout == f"{warning}Deleted Volumes:\n{name}\n\nTotal reclaimed space: 0B\n"


@pytest.mark.feature("V11")
def test_prune_keeps_named_volumes_unless_all_are_meant_and_says_what_was_reclaimed(orlop, root):
    orlop("volume", "create", "named")
    (root / "volumes/named/_data/file").write_bytes(b"x" * 8192)

    assert orlop("volume", "prune", "-f").stdout == "Total reclaimed space: 0B\n"
    everything = orlop("volume", "prune", "--all", "--force")

    assert everything.stdout == "Deleted Volumes:\nnamed\n\nTotal reclaimed space: 8.192kB\n"
    assert "'orlop volume restore' brings them back" in everything.stderr


@pytest.mark.feature("V11")
@pytest.mark.parametrize(
    ("filters", "left"),
    [
        (["label=keep"], ["other"]),
        (["label=keep=1"], ["kept2", "other"]),
        (["label!=keep"], ["kept1", "kept2"]),
        (["label!=keep=1"], ["kept1"]),
        (["label=keep", "label!=keep=1"], ["kept1", "other"]),
    ],
)
def test_prune_filters_by_label_and_by_its_absence(orlop, filters, left):
    orlop("volume", "create", "kept1", "--label", "keep=1")
    orlop("volume", "create", "kept2", "--label", "keep=2")
    orlop("volume", "create", "other")

    orlop("volume", "prune", "-af", *(word for text in filters for word in ("--filter", text)))

    assert orlop("volume", "ls", "-q").stdout.split() == left


def test_pruning_the_trash_deletes_for_good_what_was_removed_and_nothing_else(orlop, root):
    orlop("volume", "create", "gone")
    orlop("volume", "create", "here")
    orlop("volume", "rm", "gone")

    done = orlop("volume", "prune", "--trash", input="y\n")

    assert "all removed volumes for good: they cannot be restored any more" in done.stdout
    assert "Deleted Volumes:\ngone\n\n" in done.stdout
    assert [path.name for path in (root / "volumes").iterdir()] == ["here"]
    assert orlop("volume", "ls", "-q").stdout == "here\n"


@pytest.mark.part("V8", "V5")
def test_what_an_engine_never_gave_back_is_found_and_taken_down_by_hand(orlop, root, environment):
    orlop("volume", "create", "data", "-o", "size=8m")
    config = Config(root=root, run=Path(environment["ORLOP_RUN"]))
    # This process is the engine: it took the volume, and got no answer.
    engine = Holder("dockerd/0", "c1", os.getpid(), start_time(os.getpid()), counted=True)
    place = volumes(config).mount("data", engine)
    later = {"ORLOP_HOLD_GRACE": "0"}

    early = orlop("volume", "unmount", "data", status=1)
    assert orlop("system", "check").stdout == "all is well\n"
    found = orlop("system", "check", status=1, env=later)
    with subprocess.Popen(["sleep", "1000"], cwd=place) as user:
        used = orlop("volume", "unmount", "data", status=1, env=later)
        user.kill()
    assert str(place) in {mount.target for mount in ours()}
    unmounted = orlop("volume", "unmount", "data", "nope", status=1, env=later)

    assert early.stderr == "orlop: volume 'data' is in use by dockerd/0 for c1; stop that first\n"
    assert found.stderr == (
        "data: dockerd/0 took it and did not give it back, and no process uses it;"
        " 'orlop volume unmount data' takes it down\n"
    )
    assert f"in use by sleep ({user.pid})" in used.stderr
    assert (unmounted.stdout, unmounted.stderr) == ("data\n", "orlop: no volume 'nope'\n")
    assert not place.exists()
    assert orlop("system", "check", env=later).stdout == "all is well\n"
    assert orlop("volume", "unmount", "data").stdout == "data\n"
