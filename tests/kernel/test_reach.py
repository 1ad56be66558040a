"""An engine in another mount namespace sees what is mounted here, also after it has lost the folder that both share."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.errors import Unavailable
from orlop.kernel.mounter import KernelMounter
from orlop.kernel.reach import refuse_another
from orlop.mount import Mount


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A folder that is a shared mount, as a plugin has one."""
    folder = tmp_path / "mounts"
    folder.mkdir()
    subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
    subprocess.run(["mount", "--make-shared", str(folder)], check=True)
    yield folder
    for place in folder.iterdir():
        KernelMounter().unmount(place)
    subprocess.run(["umount", "-R", str(folder)], check=True)


def test_an_engine_that_lost_the_folder_sees_volumes_again_and_those_that_follow(shared: Path) -> None:
    mounter = KernelMounter()
    with _engine('umount "$0"', str(shared)) as engine:
        mounter.mount([Mount("tmpfs", "tmpfs")], shared / "first")
        (shared / "first/file").write_text("content")
        assert not _theirs(engine, shared / "first/file").exists()

        mounter.reach(engine.pid, shared / "first")
        mounter.mount([Mount("tmpfs", "tmpfs")], shared / "second")
        (shared / "second/file").touch()

        assert _theirs(engine, shared / "first/file").read_text() == "content"
        assert _theirs(engine, shared / "second/file").exists()
        mounter.unmount(shared / "first")
        assert not _theirs(engine, shared / "first").exists()
        engine.kill()


def test_one_that_sees_it_is_left_alone(shared: Path) -> None:
    mounter = KernelMounter()
    with _engine("true") as engine:
        mounter.mount([Mount("tmpfs", "tmpfs")], shared / "first")
        before = Path(f"/proc/{engine.pid}/mountinfo").read_text()

        mounter.reach(engine.pid, shared / "first")

        assert str(shared / "first") in before
        assert Path(f"/proc/{engine.pid}/mountinfo").read_text() == before
        engine.kill()
    mounter.reach(engine.pid, shared / "first")  # it has ended


def test_one_that_cannot_see_it_is_told_so(shared: Path) -> None:
    mounter = KernelMounter()
    with _engine('umount "$0"; mount -t tmpfs none "$1"', str(shared), str(shared.parent)) as engine:
        mounter.mount([Mount("tmpfs", "tmpfs")], shared / "first")

        with pytest.raises(Unavailable, match=rf"'{shared}/first' does not reach the engine \(process {engine.pid}\)"):
            mounter.reach(engine.pid, shared / "first")
        engine.kill()


def test_what_reaches_nobody_because_the_folder_is_not_shared_is_told_so(tmp_path: Path) -> None:
    mounter = KernelMounter()
    with _engine("mount --make-rprivate /", "") as engine:
        mounter.mount([Mount("tmpfs", "tmpfs")], tmp_path / "mounts/first")
        try:
            with pytest.raises(Unavailable, match="does not reach the engine"):
                mounter.reach(engine.pid, tmp_path / "mounts/first")
        finally:
            mounter.unmount(tmp_path / "mounts/first")
            engine.kill()


def test_a_folder_that_is_used_in_place_must_be_the_engines_too(tmp_path: Path) -> None:
    for name in ("here", "other"):
        (tmp_path / name).mkdir()
    with _engine('mount --bind "$1" "$0"', str(tmp_path / "here"), str(tmp_path / "other")) as engine:
        refuse_another(engine.pid, tmp_path / "other")
        with pytest.raises(Unavailable, match=rf"\(process {engine.pid}\) does not have the folder '{tmp_path}/here'"):
            refuse_another(engine.pid, tmp_path / "here")
        engine.kill()
    refuse_another(engine.pid, tmp_path / "here")  # it has ended


def _theirs(engine: "subprocess.Popen[str]", path: Path) -> Path:
    """``path`` as ``engine`` sees it."""
    return Path(f"/proc/{engine.pid}/root", str(path).lstrip("/"))


def _engine(script: str, *arguments: str) -> "subprocess.Popen[str]":
    """A process in a mount namespace of its own, which gets what is mounted on shared mounts, after ``script``."""
    argv = ["unshare", "--mount", "--propagation", "unchanged", "sh", "-ec", f"{script}; echo ready; read x"]
    process = subprocess.Popen([*argv, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process
