"""Folders beneath an open one, in one call and part by part: the same folder, the same refusals."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orlop.kernel import beneath

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_Way = Callable[[int, bytes, int], int]


@pytest.fixture(params=[beneath.opened, beneath.part_by_part], ids=["at once", "part by part"])
def way(request: pytest.FixtureRequest) -> _Way:
    found: _Way = request.param
    return found


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "root/a/b").mkdir(parents=True)
    (tmp_path / "root/a/file").touch()
    (tmp_path / "elsewhere/b").mkdir(parents=True)
    (tmp_path / "root/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root/a/near").symlink_to("b")
    fd = os.open(tmp_path / "root", _FLAGS)
    yield fd
    os.close(fd)


def _is(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    finally:
        os.close(fd)


def test_a_folder_is_found_by_its_parts(way: _Way, root: int, tmp_path: Path) -> None:
    assert _is(way(root, b"a/b", _FLAGS), tmp_path / "root/a/b")
    assert _is(beneath.opened(root, b"", _FLAGS), tmp_path / "root")


@pytest.mark.parametrize("path", [b"link/b", b"link", b"a/near"])
def test_no_link_is_followed_wherever_it_leads(way: _Way, root: int, path: bytes) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError) as caught:
        way(root, path, _FLAGS)
    assert caught.value.errno in (errno.ELOOP, errno.ENOTDIR)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(("path", "error"), [(b"a/no", errno.ENOENT), (b"a/file", errno.ENOTDIR)])
def test_the_kernels_errors_arrive(way: _Way, root: int, path: bytes, error: int) -> None:
    with pytest.raises(OSError) as caught:
        way(root, path, _FLAGS)
    assert caught.value.errno == error


def test_a_path_that_no_call_takes_is_gone_part_by_part(root: int) -> None:
    name, here = b"n" * 250, os.dup(root)
    for _ in range(20):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, _FLAGS, dir_fd=here)
        os.close(here)
        here = below
    found = beneath.opened(root, b"/".join([name] * 20), _FLAGS)
    try:
        assert os.path.sameopenfile(found, here)
    finally:
        os.close(found)
        os.close(here)


def test_a_kernel_without_the_call_does_it_part_by_part(
    root: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beneath, "_OPENAT2", 100_000)  # a number that no kernel has
    assert _is(beneath.opened(root, b"a/b", _FLAGS), tmp_path / "root/a/b")
