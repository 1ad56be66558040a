"""Moving a volume to another driver: every file, or nothing; and a way back until it is committed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orlop import engine
from orlop.kernel.mountinfo import ours
from orlop.kernel.processes import start_time
from orlop.state import Holder

pytestmark = pytest.mark.part("S6")


def fill(folder: Path) -> None:
    (folder / "d").mkdir()
    (folder / "d/file").write_bytes(os.urandom(3_000_000))
    (folder / "d/link").symlink_to("file")
    os.link(folder / "d/file", folder / "hard")
    os.chown(folder / "d/file", 7, 8)
    os.setxattr(folder / "d/file", "user.colour", b"blue")
    with (folder / "sparse").open("wb") as file:
        file.truncate(50_000_000)


def seen(folder: Path) -> dict[str, tuple]:
    found = {}
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        content = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = (oct(about.st_mode), about.st_uid, about.st_gid, content)
    found.pop("lost+found", None)
    return found


@pytest.fixture
def data(orlop, root: Path) -> dict[str, tuple]:
    """What is in the volume ``data``, a folder of the driver local."""
    orlop("volume", "create", "data", "--label", "team=blue")
    fill(root / "volumes/data/_data")
    return seen(root / "volumes/data/_data")


@pytest.fixture
def content(orlop, tmp_path: Path):
    """The files of a volume, as an export has them."""

    def look(name: str) -> dict[str, tuple]:
        folder = tmp_path / "look"
        folder.mkdir()
        orlop("volume", "export", name, "-o", str(tmp_path / "look.tar"))
        subprocess.run(["tar", "xpf", str(tmp_path / "look.tar"), "-C", str(folder)], check=True)
        found = seen(folder)
        subprocess.run(["rm", "-r", str(folder)], check=True)
        return found

    return look


def test_a_folder_becomes_a_filesystem_of_its_own_with_every_file(orlop, root: Path, data, content) -> None:
    said = orlop("volume", "migrate", "data", "--to", "local", "-o", "size=128m").stdout

    assert said == "data is kept by local now; the old one is there until 'orlop volume migrate data --commit'\n"
    assert content("data") == data
    assert orlop("volume", "inspect", "data", "-f", "{{.Options.size}} {{.Labels.team}}").stdout == "128m blue\n"
    assert seen(root / "volumes/data/_data") == data, "the old one is kept"
    assert (root / "volumes/data~2/image").stat().st_blocks * 512 < 140_000_000

    orlop("volume", "migrate", "data", "--commit")
    assert orlop("volume", "ls", "--trash", "-q").stdout == "data\n"
    assert orlop("system", "check").stdout == "all is well\n"


def test_back_returns_to_what_was_and_keeps_what_was_written_since(orlop, root: Path, data, content) -> None:
    orlop("volume", "migrate", "data", "--to", "local", "-o", f"mountpoint={root}/srv")
    (root / "srv/new").write_text("since")

    assert orlop("volume", "migrate", "data", "--back", "--dry-run").stdout.startswith("would go back to")
    orlop("volume", "migrate", "data", "--back")

    assert content("data") == data
    assert (root / "srv/new").read_text() == "since"
    orlop("volume", "migrate", "data", "--back")
    assert "new" in content("data")


def test_dry_run_says_what_it_would_do(orlop, root: Path, data) -> None:
    said = orlop("volume", "migrate", "data", "--to", "local", "-o", "size=128m", "--dry-run").stdout

    assert said.startswith("would copy ")
    assert said.endswith(" bytes of data from driver local to local\n")
    assert [path.name for path in (root / "volumes").iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--to", "local", "-o", "size=1m"], "not the same in the copy"),
        (["--to", "local", "-o", "mountpoint={root}/full"], "is not empty"),
        (["--to", "local"], "with these options already"),
        (["--to", "nosuch"], "no volume driver 'nosuch'"),
        (["--to", "local", "-o", "sise=1g"], "did you mean 'size'"),
        (["--to", "sshfs", "-o", "sshcmd=-oProxyCommand=x:/"], "sshcmd"),
        (["--commit"], "nothing is kept"),
        (["--back"], "nothing is kept"),
        ([], "say one of"),
    ],
)
def test_what_cannot_be_done_changes_nothing(orlop, root: Path, data, content, options: list[str], why: str) -> None:
    (root / "full").mkdir()
    (root / "full/theirs").write_text("kept")

    failed = orlop("volume", "migrate", "data", *(word.format(root=root) for word in options), status=1)

    assert any(word in failed.stderr for word in why.split("|")), failed.stderr
    assert content("data") == data
    assert (root / "full/theirs").read_text() == "kept"
    assert orlop("volume", "ls", "-q").stdout == "data\n"
    assert [path.name for path in (root / "volumes").iterdir()] == ["data"]
    assert not [entry.target for entry in ours() if entry.target.startswith(str(root))]


def test_a_volume_in_use_is_not_moved(orlop, root: Path, tmp_path: Path, data) -> None:
    service = engine.volumes(engine.Config(root=root, run=tmp_path / "run"))
    me = Holder("docker", "c" * 64, os.getpid(), start_time(os.getpid()) or 0)
    service.mount("data", me)
    try:
        failed = orlop("volume", "migrate", "data", "--to", "local", "-o", "size=128m", status=1)
    finally:
        service.unmount("data", me)

    assert "volume 'data' is in use by docker for cccccccccccc; stop that first" in failed.stderr
    assert seen(root / "volumes/data/_data") == data


def test_a_driver_that_forgets_is_found_out(orlop, root: Path, data, content) -> None:
    """What is compared was mounted anew."""
    failed = orlop("volume", "migrate", "data", "--to", "tmpfs", status=1)

    assert "is not the same in the copy" in failed.stderr
    assert content("data") == data


@pytest.mark.parametrize("place", ["migrate: made", "mount: mounted", "migrate: compared", "migrate: switched"])
def test_a_kill_at_any_step_leaves_one_whole_volume(orlop, root: Path, tmp_path: Path, data, content, place) -> None:
    script = f"""
import os, signal, subprocess
from pathlib import Path
from orlop import engine
from orlop.state import Holder
from orlop.volumes import migration
def step(at):
    if at == {place!r}: os.kill(os.getpid(), signal.SIGKILL)
def copy(source, target): subprocess.run(["cp", "-a", f"{{source}}/.", target], check=True)
service = engine.volumes(engine.Config(root=Path({str(root)!r}), run=Path({str(tmp_path / "run")!r}), step=step))
migration.migrate(service, "data", "local", {{"size": "128m"}}, Holder("orlop", "m", os.getpid(), 0), copy)
"""
    died = subprocess.run([sys.executable, "-c", script], check=False)
    assert died.returncode == -signal.SIGKILL

    orlop("system", "check", "--repair", status=0)

    assert content("data") == data
    assert orlop("volume", "ls", "-q").stdout == "data\n"
    kept = place == "migrate: switched"
    assert sorted(path.name for path in (root / "volumes").iterdir()) == (["data", "data~2"] if kept else ["data"])
    orlop("volume", "migrate", "data", "--back" if kept else "--commit", status=0 if kept else 1)
    assert orlop("system", "check").stdout == "all is well\n"
