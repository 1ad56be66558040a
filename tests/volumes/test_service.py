"""Who has volumes, where they are mounted, when they may go: on paper, without root."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from orlop.errors import Conflict, InUse, Invalid, NotFound, Unavailable
from orlop.kernel.locks import Locks
from orlop.kernel.processes import start_time
from orlop.mount import Mount
from orlop.state import Holder
from orlop.testing.paper import PaperMounter
from orlop.volumes.driver import Volume
from orlop.volumes.memory import TmpfsDriver
from orlop.volumes.reconcile import reconcile
from orlop.volumes.service import VolumeService

Reopen = Callable[..., VolumeService]


def holder(container: str = "c1", client: str = "dockerd/0") -> Holder:
    """This very process, as an engine that runs ``container``."""
    return Holder(client, container, os.getpid(), start_time(os.getpid()) or 0)


def dead_holder(container: str = "c1") -> Holder:
    """An engine that was killed: its pid is somebody else's now."""
    return Holder("dockerd/0", container, os.getpid(), 1)


@pytest.mark.part("V5")
def test_a_created_volume_is_there_with_its_options_and_labels(service: VolumeService) -> None:
    service.create("data", {"mode": "0700"}, {"team": "a"})

    row = service.get("data")
    assert (row.name, row.driver, row.options, row.labels) == ("data", "local", {"mode": "0700"}, {"team": "a"})
    assert [found.name for found in service.all()] == ["data"]


def test_creating_again_is_fine_and_keeps_the_first(service: VolumeService, clock: Callable[[], float]) -> None:
    first = service.create("data", {})
    clock.now += 100  # type: ignore[attr-defined]

    assert service.create("data", {}).created == first.created


def test_creating_again_with_other_options_is_a_conflict_that_names_them(service: VolumeService) -> None:
    service.create("data", {"mode": "0700"})

    with pytest.raises(Conflict, match="'mode' '0700'"):
        service.create("data", {"mode": "0755"})
    with pytest.raises(Conflict, match="driver 'local'"):
        service.create("data", {"driver": "tmpfs"})


@pytest.mark.parametrize("name", ["", "../x", "a/b", "..", "a\nb", "x" * 300, "-x", "naïve", "a b", "x~2"])
def test_a_bad_name_is_refused_and_nothing_is_made(service: VolumeService, tmp_path: Path, name: str) -> None:
    with pytest.raises(Invalid):
        service.create(name, {})

    assert not list((tmp_path / "volumes").iterdir())
    assert not service.all()


def test_an_unknown_option_is_refused_with_the_nearest_known_one(service: VolumeService) -> None:
    with pytest.raises(Invalid, match="unknown option 'siez' for driver 'local'; did you mean 'size'"):
        service.create("data", {"siez": "1g"})


def test_an_unknown_driver_is_refused_with_those_there_are(service: VolumeService) -> None:
    with pytest.raises(NotFound, match=r"no volume driver 'zfs'; there are local, tmpfs"):
        service.create("data", {"driver": "zfs"})


def test_a_creation_that_fails_leaves_nothing(reopened: Reopen, tmp_path: Path) -> None:
    class Full(TmpfsDriver):
        def create(self, volume: Volume) -> None:
            raise Unavailable("the server is down")

    service = reopened(full=Full())
    with pytest.raises(Unavailable, match="server is down"):
        service.create("data", {"driver": "full"})

    assert service.state.live("data") is None
    assert not list((tmp_path / "volumes").iterdir())


def test_a_hundred_at_once_create_one_volume(service: VolumeService) -> None:
    with ThreadPoolExecutor(20) as pool:
        rows = list(pool.map(lambda _: service.create("data", {}), range(100)))

    assert len({row.created for row in rows}) == 1
    assert len(service.all()) == 1


@pytest.mark.part("V8", "V9")
def test_the_second_user_finds_it_mounted_and_the_last_one_takes_it_down(
    service: VolumeService, mounter: PaperMounter
) -> None:
    service.create("data", {})
    place = service.mount("data", holder("c1"))
    assert service.mount("data", holder("c2")) == place

    service.unmount("data", holder("c1"))
    assert place in mounter.mounts

    service.unmount("data", holder("c2"))
    assert place not in mounter.mounts
    assert not service.state.attached()


@pytest.mark.part("V8", "P8")
def test_an_engine_that_does_not_see_the_mount_gets_an_error_and_holds_nothing(
    service: VolumeService, mounter: PaperMounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unseen(pid: int, target: Path) -> None:
        raise Unavailable(f"{target.name} does not reach process {pid}")

    service.create("data", {})
    service.create("used", {})
    place = service.mount("used", holder("c1"))
    monkeypatch.setattr(mounter, "reach", unseen)

    for name, container in (("data", "c1"), ("used", "c2")):
        with pytest.raises(Unavailable, match=f"{name} does not reach process {holder().pid}"):
            service.mount(name, holder(container))

    assert list(mounter.mounts) == [place]
    assert [hold.holder.id for hold in service.state.holds()] == ["c1"]


def test_docker_cp_does_not_unmount_under_a_running_container(service: VolumeService, mounter: PaperMounter) -> None:
    service.create("data", {})
    place = service.mount("data", holder("c1"))

    service.mount("data", holder("c1"))
    service.unmount("data", holder("c1"))
    assert place in mounter.mounts

    service.unmount("data", holder("c1"))
    assert place not in mounter.mounts


def test_one_unmount_too_many_does_not_unmount_what_the_kernel_shows_in_use(
    service: VolumeService, mounter: PaperMounter
) -> None:
    service.create("data", {})
    place = service.mount("data", holder("c1"))
    mounter.seen_by[place] = [os.getpid()]

    service.unmount("data", holder("c1"))
    service.unmount("data", holder("c1"))
    assert place in mounter.mounts

    mounter.seen_by[place] = []
    reconcile(service)
    assert place not in mounter.mounts


def test_a_restarted_engine_that_mounts_again_holds_it_once(service: VolumeService, mounter: PaperMounter) -> None:
    service.create("data", {})
    service.mount("data", dead_holder())
    place = service.mount("data", holder())

    service.unmount("data", holder())

    assert place not in mounter.mounts


def test_podman_which_counts_itself_mounts_from_a_new_process_each_time(
    service: VolumeService, mounter: PaperMounter
) -> None:
    service.create("data", {})
    place = service.mount("data", Holder("podman/0", "2f73", 1, 1))
    service.mount("data", Holder("podman/0", "2f73", 1, 2))

    service.unmount("data", Holder("podman/0", "2f73", 1, 3))

    assert place not in mounter.mounts


def test_an_engine_that_counts_for_itself_gives_back_once(service: VolumeService, mounter: PaperMounter) -> None:
    service.create("data", {})
    podman = Holder("podman/0", "2f73", counted=False)
    service.mount("data", podman)
    place = service.mount("data", podman)

    service.unmount("data", podman)

    assert place not in mounter.mounts


def test_a_volume_just_mounted_is_not_removed_although_no_container_is_seen_yet(service: VolumeService) -> None:
    service.create("data", {})
    service.mount("data", holder("0123456789abcdef"))

    with pytest.raises(InUse, match="'data' is in use by dockerd/0 for 0123456789ab"):
        service.remove("data")

    assert service.get("data")


def test_what_a_killed_engine_held_can_be_removed(service: VolumeService, mounter: PaperMounter) -> None:
    service.create("data", {})
    place = service.mount("data", dead_holder())

    service.remove("data")

    assert place not in mounter.mounts
    assert not service.all()


def test_a_lost_reply_does_not_hold_a_volume_for_ever(service: VolumeService, clock: Callable[[], float]) -> None:
    service.create("data", {})
    service.mount("data", holder())
    clock.now += 3600  # type: ignore[attr-defined]

    service.remove("data")

    assert not service.all()


@pytest.mark.parametrize(
    "who", [holder(), Holder("engine/0", "c1"), Holder("podman/0", "c1", os.getpid(), 1, counted=False)]
)
def test_what_is_held_without_a_container_stays_mounted_however_long(
    service: VolumeService, mounter: PaperMounter, clock: Callable[[], float], who: Holder
) -> None:
    service.create("data", {})
    place = service.mount("data", who)
    clock.now += 86_400  # type: ignore[attr-defined]

    assert reconcile(service) == []

    assert place in mounter.mounts


def test_what_a_killed_engine_held_is_taken_down_by_itself(service: VolumeService, mounter: PaperMounter) -> None:
    service.create("data", {})
    place = service.mount("data", dead_holder())

    assert [action.verb for action in reconcile(service)] == ["settle"]

    assert place not in mounter.mounts


def test_a_removed_volume_can_be_restored_with_all_it_had(service: VolumeService, tmp_path: Path) -> None:
    service.create("data", {"mode": "0700"}, {"team": "a"})
    (tmp_path / "volumes/data/_data/file").write_text("precious")
    service.remove("data")
    assert not service.all()

    row = service.restore("data")

    assert (row.options, row.labels) == ({"mode": "0700"}, {"team": "a"})
    assert (tmp_path / "volumes" / row.key / "_data/file").read_text() == "precious"


def test_a_new_volume_never_meets_the_data_of_a_removed_one(service: VolumeService, tmp_path: Path) -> None:
    service.create("data", {})
    (tmp_path / "volumes/data/_data/file").write_text("old")
    service.remove("data")

    new = service.create("data", {})

    assert not list((tmp_path / "volumes" / new.key / "_data").iterdir())
    with pytest.raises(Conflict, match="restore under another name"):
        service.restore("data")
    assert service.restore("data", "old").key == "data"
    assert [row.name for row in service.all()] == ["data", "old"]


def test_the_trash_is_emptied_after_its_grace_and_not_before(
    service: VolumeService, clock: Callable[[], float], tmp_path: Path
) -> None:
    service.create("data", {})
    service.remove("data")

    reconcile(service)
    assert (tmp_path / "volumes/data/_data").exists()

    clock.now += 86_401  # type: ignore[attr-defined]
    reconcile(service)
    assert not (tmp_path / "volumes/data").exists()
    with pytest.raises(NotFound):
        service.restore("data")


def test_a_mount_that_fails_leaves_nothing_attached(service: VolumeService, mounter: PaperMounter) -> None:
    service.create("data", {})
    mounter.broken = "no such device"

    with pytest.raises(Unavailable, match="no such device"):
        service.mount("data", holder())

    assert not service.state.attached()
    assert not service.state.holds()


@pytest.mark.part("P11")
def test_after_a_reboot_nobody_holds_anything(reopened: Reopen, mounter: PaperMounter) -> None:
    service = reopened(boot="boot-1")
    service.create("data", {})
    service.mount("data", holder())
    mounter.mounts.clear()

    service = reopened(boot="boot-2")
    reconcile(service)

    assert not service.state.attached()
    assert not service.state.holds()
    service.remove("data")


def test_a_backend_that_hangs_holds_up_its_own_volume_only(reopened: Reopen) -> None:
    answer = Event()

    class Hanging(TmpfsDriver):
        def create(self, volume: Volume) -> None:
            pass

        def attach(self, volume: Volume) -> Sequence[Mount]:
            answer.wait(20)
            return super().attach(volume)

    service = reopened(hanging=Hanging())
    service.create("slow", {"driver": "hanging"})
    service.create("quick", {})
    with ThreadPoolExecutor(1) as pool:
        hangs = pool.submit(service.mount, "slow", holder())

        assert service.mount("quick", holder())
        assert [service.get("slow").name for _ in range(100)] == ["slow"] * 100
        assert not hangs.done()
        answer.set()
        assert hangs.result(10)


def test_a_size_can_grow_and_nothing_else_changes(service: VolumeService) -> None:
    service.create("data", {"size": "8m"})

    assert service.update("data", {"size": "16m"}).options == {"size": "16m"}
    with pytest.raises(Invalid, match="can grow, not shrink"):
        service.update("data", {"size": "4m"})
    with pytest.raises(Invalid, match="'uid' of volume 'data' cannot change"):
        service.update("data", {"uid": "7"})
    assert service.get("data").options == {"size": "16m"}


def test_two_places_to_mount_are_refused_while_something_is_mounted_at_one(
    service: VolumeService, tmp_path: Path, mounter: PaperMounter
) -> None:
    def at(place: Path) -> VolumeService:
        locks = Locks(tmp_path / "locks")
        vault = service.seals.vault
        return VolumeService(tmp_path, service.state, mounter, service.drivers, locks, service.host, vault, place)

    service.create("data", {})
    service.mount("data", holder())
    with pytest.raises(Conflict, match=f"mounted below '{tmp_path}/mounts' already"):
        at(tmp_path / "elsewhere")

    service.unmount("data", holder())
    assert at(tmp_path / "elsewhere").mount("data", holder()) == tmp_path / "elsewhere/data"


def test_a_decision_to_purge_does_not_outlive_a_restore(service: VolumeService, clock: Callable[[], float]) -> None:
    service.create("data", {})
    service.remove("data")
    (decided,) = service.state.unfinished()
    service.restore("data")
    clock.now += 5  # type: ignore[attr-defined]
    service.remove("data")

    service.purge(decided)

    assert service.restore("data").name == "data"


@pytest.mark.part("P8")
def test_cloudstors_relocatable_volumes_are_those_of_driver_bucket(reopened):
    service = reopened(bucket=TmpfsDriver())

    with pytest.raises(Invalid, match="unknown option 'backing' for driver 'bucket'"):
        service.create("data", {"backing": "relocatable"})
