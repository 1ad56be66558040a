"""Real mounts: all or none, verified, seen from other namespaces, never over something in use."""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from orlop.errors import InUse, Unavailable
from orlop.kernel import loop, mountinfo
from orlop.kernel import syscalls as sc
from orlop.kernel.mounter import KernelMounter
from orlop.mount import Mount
from orlop.state import Holder
from orlop.testing.waiting import eventually
from orlop.volumes import image
from orlop.volumes.reconcile import reconcile
from orlop.volumes.service import VolumeService


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "mounts" / "with space"
    yield place
    while list(mountinfo.at([str(place)])):
        subprocess.run(["umount", "-l", str(place)], check=True)
    KernelMounter().unmount(place)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "file").write_text("content")
    return folder


def losetup() -> str:
    return subprocess.run(["losetup", "-a"], check=True, capture_output=True, text=True).stdout


def test_a_bind_shows_the_folder_and_goes_without_a_trace(target: Path, source: Path) -> None:
    mounter = KernelMounter()

    mounter.mount([Mount.bind(source)], target)
    assert (target / "file").read_text() == "content"
    assert mounter.mounted(target)

    mounter.unmount(target)
    assert not target.exists()
    mounter.unmount(target)


def test_a_mount_that_goes_while_it_is_asked_has_not_answered(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounter, ask = KernelMounter(), os.statvfs

    def goes(path: Path) -> os.statvfs_result:
        subprocess.run(["umount", "-l", str(path)], check=True)
        return ask(path)

    mounter.mount([Mount("tmpfs", "tmpfs")], target)
    assert mounter.mounted(target)
    monkeypatch.setattr(os, "statvfs", goes)

    assert not mounter.mounted(target)


def test_a_read_only_bind_refuses_writes(target: Path, source: Path) -> None:
    KernelMounter().mount([Mount.bind(source, "ro", "nosuid")], target)

    with pytest.raises(OSError, match="Read-only"):
        (target / "file").write_text("changed")
    assert (source / "file").read_text() == "content"


def test_words_of_mount8_become_attributes_and_the_rest_goes_to_the_filesystem(target: Path) -> None:
    options = ("nosuid", "nodev", "noexec", "noatime", "ro", "size=1m", "mode=0710", "defaults", "_netdev")

    KernelMounter().mount([Mount("tmpfs", "it", options)], target)

    (entry,) = mountinfo.at([str(target)])
    assert {"ro", "nosuid", "nodev", "noexec", "noatime"} <= entry.options
    assert (entry.type, entry.source) == ("tmpfs", "it")
    assert (target.stat().st_mode & 0o7777, os.statvfs(target).f_blocks * 4096) == (0o710, 1 << 20)


def test_the_kernels_own_words_say_why_it_refuses(target: Path) -> None:
    with pytest.raises(Unavailable, match=r"(?i)unknown parameter 'bogus'"):
        KernelMounter().mount([Mount("tmpfs", "tmpfs", ("bogus=1",))], target)
    with pytest.raises(Unavailable, match=r"'x' \(nosuchfs\): No such device"):
        KernelMounter().mount([Mount("nosuchfs", "x")], target)


def test_a_filesystem_that_the_kernel_lacks_is_named(target: Path) -> None:
    with pytest.raises(Unavailable, match="this kernel has no filesystem 'nosuchfs'"):
        KernelMounter().mount([Mount("nosuchfs", "server:/share")], target)

    assert not target.exists()


def test_of_two_mounts_both_are_made_or_none(target: Path, source: Path) -> None:
    mounter = KernelMounter()

    with pytest.raises(Unavailable, match="'/nowhere'"):
        mounter.mount([Mount("tmpfs", "tmpfs"), Mount.bind(Path("/nowhere"))], target)
    assert not target.exists()

    mounter.mount([Mount("tmpfs", "tmpfs"), Mount.bind(source)], target)
    assert (target / "file").exists()
    mounter.unmount(target)
    assert not target.exists()


def test_nothing_can_be_written_where_nothing_is_mounted(target: Path, source: Path) -> None:
    mounter = KernelMounter()
    mounter.mount([Mount.bind(source)], target)
    subprocess.run(["umount", str(target)], check=True)

    with pytest.raises(PermissionError):
        (target / "astray").write_text("lost")


def test_an_open_file_keeps_it_and_the_error_names_the_process(target: Path, source: Path) -> None:
    mounter = KernelMounter()
    mounter.mount([Mount.bind(source)], target)
    with subprocess.Popen(["sleep", "60"], cwd=target) as sleeper:
        try:
            with pytest.raises(InUse, match=rf"in use by sleep \({sleeper.pid}\)"):
                mounter.unmount(target)
            assert (target / "file").exists()
        finally:
            sleeper.kill()


def test_a_bind_in_another_namespace_is_a_holder_and_a_copy_of_the_mount_itself_is_not(
    target: Path, source: Path, tmp_path: Path
) -> None:
    mounter = KernelMounter()
    mounter.mount([Mount.bind(source)], target)
    container = tmp_path / "container"
    container.mkdir()
    script = 'mount --bind "$0" "$1"; umount "$0"; echo ready; read x'

    with _in_namespace("echo ready; read x") as cloned:
        assert mounter.holders([target]) == {}
        cloned.kill()
    with _in_namespace(script, str(target), str(container)) as holder:
        assert mounter.holders([target]) == {target: [holder.pid]}
        holder.kill()


@pytest.mark.parametrize("is_old", [False, True], ids=["", "before Linux 6.8"])
def test_a_bind_of_a_folder_or_of_what_is_in_it_is_a_holder(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_old: bool
) -> None:
    def missing(path: Path) -> NoReturn:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    if is_old:
        monkeypatch.setattr(sc, "mount_of", missing)
    mounter, link, container = KernelMounter(), tmp_path / "link", tmp_path / "container"
    link.symlink_to(tmp_path)
    for folder in (container, source / "below with space", tmp_path / "source2"):
        folder.mkdir()
    folders = [link / "source", tmp_path / "source2", tmp_path / "none"]

    for shown, holders in (("source", 1), ("source/below with space", 1), ("source2", 1), (".", 0)):
        with _in_namespace('mount --bind "$0" "$1"; echo ready; read x', str(tmp_path / shown), str(container)) as seer:
            seen = {folders[1] if shown == "source2" else folders[0]: [seer.pid]} if holders else {}
            assert mounter.holders(folders) == seen
            seer.kill()


def test_a_bind_elsewhere_in_our_own_namespace_is_a_holder(target: Path, source: Path, tmp_path: Path) -> None:
    mounter = KernelMounter()
    mounter.mount([Mount.bind(source)], target)
    (tmp_path / "elsewhere").mkdir()
    (source / "below").mkdir()
    subprocess.run(["mount", "--bind", str(target / "below"), str(tmp_path / "elsewhere")], check=True)
    try:
        assert len(mounter.holders([target])[target]) == 1
    finally:
        subprocess.run(["umount", str(tmp_path / "elsewhere")], check=True)
    assert mounter.holders([target]) == {}


def test_a_dead_fuse_mount_is_not_mounted_and_can_be_replaced(target: Path, source: Path, tmp_path: Path) -> None:
    mounter = KernelMounter()
    target.mkdir(parents=True)
    server = subprocess.Popen(
        [
            "sh",
            "-c",
            'exec 3<>/dev/fuse; mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 dead "$0"',
            target,
        ]
    )
    assert server.wait(10) == 0

    assert not mounter.mounted(target)
    mounter.unmount(target)
    mounter.mount([Mount.bind(source)], target)
    assert mounter.mounted(target)


@pytest.mark.parametrize(("fs", "size"), [("ext4", 8 << 20), ("xfs", 300 << 20)])
def test_a_filesystem_in_a_file_leaves_no_loop_device(target: Path, tmp_path: Path, fs: str, size: int) -> None:
    file = tmp_path / "image"
    image.make(file, fs, size, image.Root(), thin=True)
    mounter = KernelMounter()

    mounter.mount([image.as_mount(file)], target)
    assert str(file) in losetup()
    assert not list(target.iterdir())

    mounter.unmount(target)
    assert str(file) not in losetup()


def test_two_mounts_of_one_image_share_one_device(target: Path, tmp_path: Path) -> None:
    file = tmp_path / "image"
    image.make(file, "ext4", 8 << 20, image.Root(), thin=True)

    with loop.attached(file) as first, loop.attached(file) as second:
        assert first == second

    assert str(file) not in losetup()


def test_xfs_grows_while_it_is_mounted(target: Path, tmp_path: Path) -> None:
    file = tmp_path / "image"
    image.make(file, "xfs", 300 << 20, image.Root(), thin=True)
    mounter = KernelMounter()
    mounter.mount([Mount("xfs", str(file), ("loop",))], target)
    before = os.statvfs(target).f_blocks

    image.extend(file, 400 << 20, thin=True)
    image.fill(file, target)

    assert os.statvfs(target).f_blocks > before * 1.25
    mounter.unmount(target)


def test_reconciling_leaves_alone_what_is_mounted_inside_a_volume(reopened: Callable[..., VolumeService]) -> None:
    service = reopened()
    service.create("data", {})
    inside = service.attachments.mounts / "data" / "inside"
    inside.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "theirs", str(inside)], check=True)
    try:
        assert reconcile(service) == []
        assert inside.is_mount()
    finally:
        subprocess.run(["umount", str(inside)], check=True)


@pytest.mark.part("P2", "P11")
def test_a_container_that_outlives_a_plugins_namespace_still_uses_its_volume(
    reopened: Callable[..., VolumeService], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, kernel, container = reopened(), KernelMounter(), tmp_path / "container"
    monkeypatch.setattr(service.attachments, "mounter", kernel)
    container.mkdir()
    service.create("data", {"size": "16m"})
    gone = Holder("dockerd/0", "c1", 2**22 - 1, 1, counted=True)
    place = service.mount("data", gone)

    with _in_namespace(
        'mount --bind "$0" "$1"; umount "$0"; echo ready; read x', str(place), str(container)
    ) as process:
        # A plugin that was started anew has another namespace, in which nothing is mounted.
        subprocess.run(["umount", str(place)], check=True)

        assert reconcile(service) == []
        assert loop.is_attached(tmp_path / "volumes/data/image")
        service.unmount("data", gone)
        with pytest.raises(InUse, match=rf"by process {process.pid} \(sh\)"):
            service.remove("data")
        assert service.state.is_attached("data")
        process.kill()

    assert [action.verb for action in reconcile(service)] == ["settle"]
    assert not service.state.is_attached("data")
    # The kernel takes a namespace apart when it has time.
    eventually(lambda: not loop.is_attached(tmp_path / "volumes/data/image"))


def _in_namespace(script: str, *arguments: str) -> "subprocess.Popen[str]":
    """A shell in a mount namespace of its own, after it has printed ``ready``."""
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, *arguments]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process
