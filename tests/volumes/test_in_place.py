"""Volumes that are folders of orlop's own are used where they are: nothing is mounted, and nothing taken down."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from orlop.errors import InUse, Unavailable
from orlop.kernel.processes import start_time
from orlop.state import Holder
from orlop.testing.paper import PaperMounter
from orlop.volumes import attachments, definitions
from orlop.volumes.reconcile import reconcile
from orlop.volumes.service import VolumeService
from orlop.volumes.uses import holder

Reopen = Callable[..., VolumeService]
ME = Holder("dockerd/0", "c1", os.getpid(), start_time(os.getpid()) or 0)


@pytest.fixture
def service(reopened: Reopen) -> VolumeService:
    return reopened(mounts=None)


@pytest.mark.part("V5")
def test_a_folder_is_where_it_is_said_to_be_before_during_and_after_its_use(
    service: VolumeService, mounter: PaperMounter, tmp_path: Path
) -> None:
    row = service.create("data", {"mode": "0750"})
    place = service.path(row)
    (place / "before").touch()

    assert place == tmp_path / "volumes/data/_data"
    assert service.mount("data", ME) == place
    assert service.state.is_attached("data")
    assert not mounter.mounts

    service.unmount("data", ME)
    assert not service.state.is_attached("data")
    assert (place / "before").exists()


@pytest.mark.parametrize("options", [{"size": "8m"}, {"mountpoint": "yours"}, {"type": "tmpfs", "device": "tmpfs"}])
def test_all_else_is_mounted(
    service: VolumeService, mounter: PaperMounter, tmp_path: Path, options: dict[str, str]
) -> None:
    if "mountpoint" in options:
        options = {"mountpoint": str(tmp_path / "yours")}
    service.create("data", options)

    assert service.mount("data", ME) == tmp_path / "mounts/data"
    assert list(mounter.mounts) == [tmp_path / "mounts/data"]


def test_where_mounts_have_a_place_new_volumes_are_mounted_and_old_ones_stay_where_they_are(
    service: VolumeService, reopened: Reopen, tmp_path: Path
) -> None:
    service.create("old", {})
    service.mount("old", ME)

    later = reopened(mounts=tmp_path / "mounts")
    later.create("new", {})

    assert later.mount("old", ME) == tmp_path / "volumes/old/_data"
    assert later.mount("new", ME) == tmp_path / "mounts/new"


def test_a_volume_that_an_earlier_orlop_mounted_goes_on_to_be_mounted(reopened: Reopen, tmp_path: Path) -> None:
    reopened(mounts=tmp_path / "mounts").create("data", {})

    assert reopened(mounts=None).mount("data", ME) == tmp_path / "mounts/data"


def test_who_is_seen_keeps_it_attached_and_from_being_removed(service: VolumeService, mounter: PaperMounter) -> None:
    service.create("data", {})
    place = service.mount("data", ME)
    mounter.seen_by[place] = [os.getpid()]

    service.unmount("data", ME)
    assert service.state.is_attached("data")
    with pytest.raises(InUse, match=f"process {os.getpid()}"):
        service.remove("data")

    assert reconcile(service) == []
    mounter.seen_by.clear()
    assert [(action.verb, action.key) for action in reconcile(service)] == [("settle", "data")]
    assert place.is_dir()


def test_no_way_of_taking_it_down_takes_an_empty_folder_away(service: VolumeService, reopened: Reopen) -> None:
    place = service.path(service.create("data", {}))
    service.mount("data", ME)
    service.unmount("data", ME)
    service.mount("data", ME)

    after = reopened(boot="boot-2", mounts=None)
    assert [action.verb for action in reconcile(after)] == ["forget"]
    assert place.is_dir()

    after.remove("data")
    assert after.path(after.restore("data")) == place
    assert after.mount("data", ME) == place
    assert place.is_dir()


def test_a_folder_that_has_gone_is_named_and_nothing_is_held(service: VolumeService) -> None:
    place = service.path(service.create("data", {}))
    place.rmdir()

    with pytest.raises(Unavailable, match=f"volume 'data': its folder '{place}' is missing"):
        service.mount("data", ME)

    assert not service.state.holds()
    assert not service.state.is_attached("data")


def test_an_engine_that_does_not_see_the_folder_gets_an_error_and_holds_nothing(
    service: VolumeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unseen(pid: int, target: Path) -> None:
        raise Unavailable(f"{target} does not reach process {pid}")

    place = service.path(service.create("data", {}))
    monkeypatch.setattr(attachments, "refuse_another", unseen)

    with pytest.raises(Unavailable, match=f"{place} does not reach process {ME.pid}"):
        service.mount("data", ME)

    assert not service.state.holds()
    assert place.is_dir()


def test_only_the_files_can_be_reached_by_those_who_know_the_path(service: VolumeService, tmp_path: Path) -> None:
    service.create("data", {})
    service.create("image", {"size": "8m"})

    modes = {
        path: stat.S_IMODE((tmp_path / "volumes" / path).stat().st_mode)
        for path in ("data", "data/_data", "data/volume.json", "image", "image/volume.json")
    }
    assert modes == {
        "data": 0o711,
        "data/_data": 0o755,
        "data/volume.json": 0o600,
        "image": 0o700,
        "image/volume.json": 0o600,
    }


def test_its_definition_says_so_too(service: VolumeService) -> None:
    rows = [service.create("data", {}), service.create("image", {"size": "8m"})]

    assert [row for _, row in definitions.read(service.folder)] == rows
    assert [row.in_place for row in rows] == [True, False]


def test_a_command_of_ours_that_works_in_it_keeps_it_however_long_it_takes(
    service: VolumeService, clock: Callable[[], float]
) -> None:
    service.create("data", {})
    me = holder("import")
    service.mount("data", me)
    clock.now += 10_000  # type: ignore[attr-defined]

    with pytest.raises(InUse, match="orlop for import-"):
        service.remove("data")

    service.unmount("data", me)
    service.remove("data")
