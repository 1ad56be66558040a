"""Real ID-mapped binds: the kernel shows another owner than is stored, and stores another than it is shown."""

import os
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from orlop.errors import Unavailable
from orlop.kernel import idmap, mountinfo
from orlop.kernel.mounter import KernelMounter
from orlop.mount import Mount


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """On a tmpfs, which can be mapped whatever the tests' own folder is on."""
    place = tmp_path / "tmpfs"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "shown"
    KernelMounter().unmount(tmp_path / "shown")


def owner(path: Path) -> tuple[int, int]:
    return path.stat().st_uid, path.stat().st_gid


def test_two_owners_change_places_and_all_others_stay(folder: Path, target: Path) -> None:
    for name, user in (("roots", 0), ("annas", 1000), ("others", 7)):
        (folder / name).touch()
        os.chown(folder / name, user, user)
    words = f"{idmap.swap('u', 0, 1000)} {idmap.swap('g', 0, 5)}"

    KernelMounter().mount([Mount.bind(folder, "ro", f"{idmap.OPTION}{words}")], target)

    assert {path.name: owner(path) for path in target.iterdir()} == {
        "roots": (1000, 5), "annas": (0, 1000), "others": (7, 7)
    }  # fmt: skip
    assert owner(folder / "roots") == (0, 0)
    assert os.statvfs(target).f_flag & os.ST_RDONLY


def test_what_a_user_makes_is_stored_as_the_other_and_root_can_make_files_too(folder: Path, target: Path) -> None:
    words = f"{idmap.swap('u', 0, 1000)} {idmap.swap('g', 0, 1000)}"
    KernelMounter().mount([Mount.bind(folder, f"{idmap.OPTION}{words}")], target)
    folder.chmod(0o777)

    user = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups"]
    subprocess.run([*user, "touch", "new"], cwd=target, check=True)
    (target / "by-root").touch()

    assert owner(folder / "new") == (0, 0)
    assert owner(folder / "by-root") == (1000, 1000)
    assert owner(target / "by-root") == (0, 0)


@pytest.mark.parametrize(("stored", "shown"), [(0, 0), (0, 1), (5, 0), (1000, 4294967294)])
def test_nobody_is_left_out_of_a_map(stored: int, shown: int) -> None:
    ranges = sorted(tuple(map(int, word.split(":")[1:])) for word in idmap.swap("u", stored, shown).split())

    assert sum(count for _, _, count in ranges) == 2**32 - 1
    assert all(first + count == after for (first, _, count), (after, _, _) in pairwise(ranges))


def test_a_filesystem_that_cannot_is_found_out_without_a_trace(folder: Path, tmp_path: Path) -> None:
    fuse = tmp_path / "fuse"
    fuse.mkdir()
    subprocess.run(["bindfs", folder, fuse], check=True)
    ours = lambda: [entry for entry in mountinfo.ours() if entry.target.startswith(f"{tmp_path}/")]  # noqa: E731
    before = ours()

    try:
        assert idmap.works_on(folder)
        assert not idmap.works_on(fuse)
        assert ours() == before
        with pytest.raises(Unavailable):
            KernelMounter().mount([Mount.bind(fuse, f"{idmap.OPTION}u:0:1:1 g:0:1:1")], tmp_path / "none")
    finally:
        subprocess.run(["umount", fuse], check=True)
