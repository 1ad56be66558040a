import os

import pytest

from orlop.errors import Unavailable
from orlop.kernel import mountinfo, subdir
from orlop.kernel import syscalls as sc
from orlop.kernel.mounter import KernelMounter
from orlop.mount import Mount
from orlop.volumes import image

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")


@pytest.fixture
def disk(tmp_path):
    """A filesystem in a file with a folder ``data`` and a secret beside it."""
    path, target, mounter = tmp_path / "image", tmp_path / "whole", KernelMounter()
    image.make(path, "ext4", 8 << 20, image.Root(), thin=True)
    mounter.mount([Mount("ext4", str(path), ("loop",))], target)
    (target / "data").mkdir()
    (target / "data" / "file").write_text("x")
    (target / "beside").write_text("hidden")
    mounter.unmount(target)
    return path


def test_only_the_folder_is_seen_and_nothing_else_is_mounted(disk, tmp_path):
    mounter, target = KernelMounter(), tmp_path / "target"

    mounter.mount([Mount("ext4", str(disk), ("loop", "X-mount.subdir=data", "nodev"))], target)

    entries = [entry for entry in mountinfo.ours() if entry.target.startswith(str(tmp_path))]
    seen = os.listdir(target)
    mounter.unmount(target)
    assert seen == ["file"]
    assert [(entry.root, "nodev" in entry.options) for entry in entries] == [("/data", True)]


def test_older_kernels_are_asked_in_a_namespace_of_a_thread(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("x")
    before = [entry.id for entry in mountinfo.ours()]

    with sc.closing(sc.clone_tree(tmp_path)) as tree:
        (tmp_path / "place").mkdir()
        with sc.closing(subdir.in_a_namespace(tree, "data", tmp_path / "place")) as inner:
            seen = os.listdir(f"/proc/self/fd/{inner}")

    assert seen == ["file"]
    assert [entry.id for entry in mountinfo.ours()] == before


def test_a_folder_that_is_not_there_is_an_error_and_nothing_stays_mounted(disk, tmp_path):
    mounter, target = KernelMounter(), tmp_path / "target"

    with pytest.raises(Unavailable, match="No such file"):
        mounter.mount([Mount("ext4", str(disk), ("loop", "X-mount.subdir=nothing"))], target)

    assert not target.exists() or not os.path.ismount(target)
