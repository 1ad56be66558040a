"""Volumes that all hosts share: what one host does is so for the others, and what goes wrong on one harms none.

Each host is a service of its own on paper; what they share is an account of the stand-in for Azure Files.
"""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.azure_account import CREDENTIALS, settings

from orlop import engine
from orlop.errors import Conflict, NotFound, Unavailable
from orlop.kernel.locks import Locks
from orlop.kernel.processes import start_time
from orlop.state import Holder, State
from orlop.testing.azure.messages import Refused, Reply, Request
from orlop.testing.azure.server import AzureFiles
from orlop.testing.paper import PaperMounter
from orlop.volumes.azurefile import AzureFileDriver
from orlop.volumes.host import Host
from orlop.volumes.local import LocalDriver
from orlop.volumes.reconcile import reconcile
from orlop.volumes.service import VolumeService
from orlop.volumes.vault import Vault

NewHost = Callable[..., VolumeService]


class Killed(BaseException):
    """kill -9, as far as one process can play it."""


def on_paper(
    root: Path, told: dict[str, str], now: Callable[[], float], step: Callable[[str], object] = str
) -> VolumeService:
    """A host with the account, and azurefile as its default driver."""
    root.mkdir(exist_ok=True)
    drivers = {"azurefile": AzureFileDriver(told), "local": LocalDriver(root / "volumes")}
    state, locks = State(root / "state.db"), Locks(root / "locks", patience=5)
    about = Host("boot-1", now, step)
    vault = Vault(root / "vault", root / "vault.key")
    return VolumeService(root, state, PaperMounter(), drivers, locks, about, vault, default_driver="azurefile")


def _die_at(root: Path, told: dict[str, str], place: str) -> None:
    on_paper(root, told, time.time, lambda at: os._exit(9) if at == place else None).create("data", {})


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[AzureFiles]:
    with AzureFiles(tmp_path / "shares", CREDENTIALS) as azure:
        yield azure


@pytest.fixture
def host(tmp_path: Path, azure: AzureFiles, clock: Callable[[], float]) -> NewHost:
    """A host by its name; the same name is the same host, started anew."""
    return lambda name, step=str: on_paper(tmp_path / name, settings(azure), clock, step)


def shares(azure: AzureFiles) -> int:
    return len(list(azure.shares.folder.glob("*")))


def holder() -> Holder:
    return Holder("dockerd/0", "c1", os.getpid(), start_time(os.getpid()) or 0)


@pytest.mark.part("P7")
def test_the_default_driver_is_taken_where_nothing_is_said(host: NewHost) -> None:
    one = host("one")

    assert one.create("data", {}).driver == "azurefile"
    assert one.create("here", {"driver": "local"}).driver == "local"


@pytest.mark.parametrize(
    ("platform", "needed"), [("AZURE", "AZURE_STORAGE_ACCOUNT"), ("AWS", "ORLOP_SHARED"), ("GCP", "is for AZURE")]
)
def test_the_platform_chooses_the_default_driver(
    monkeypatch: pytest.MonkeyPatch, platform: str, needed: str, tmp_path: Path
) -> None:
    monkeypatch.setenv("CLOUD_PLATFORM", platform)
    service = engine.volumes(engine.Config(tmp_path / "root", tmp_path / "run"))

    with pytest.raises(Unavailable, match=needed):
        service.create("data", {})

    assert service.state.unfinished() == []


@pytest.mark.parametrize("platform", ["", "AZURE"])
def test_a_setting_chooses_the_default_driver_on_any_platform(
    monkeypatch: pytest.MonkeyPatch, platform: str, tmp_path: Path
) -> None:
    monkeypatch.setenv("CLOUD_PLATFORM", platform)
    monkeypatch.setenv("ORLOP_DRIVER", "tmpfs")
    config = engine.Config(tmp_path / "root", tmp_path / "run")

    assert engine.volumes(config).create("data", {}).driver == "tmpfs"
    assert engine.volumes(replace(config, default_driver="local")).create("other", {}).driver == "local"


def test_without_any_setting_volumes_are_this_hosts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("CLOUD_PLATFORM", "ORLOP_DRIVER"):
        monkeypatch.delenv(name, raising=False)

    assert engine.volumes(engine.Config(tmp_path / "root", tmp_path / "run")).create("data", {}).driver == "local"


def test_a_second_host_joins_and_knows_when_it_was_created(
    host: NewHost, azure: AzureFiles, clock: Callable[[], float]
) -> None:
    one, two = host("one"), host("two")
    row = one.create("data", {"uid": "1000"}, {"team": "a"})
    clock.now += 1000  # type: ignore[attr-defined]

    (found,) = two.drivers["azurefile"].found()  # type: ignore[attr-defined]
    two.create("data", {"uid": "1000"})

    assert shares(azure) == 1
    assert (found.name, found.options, found.labels, found.created) == (
        "data",
        {"uid": "1000"},
        {"team": "a"},
        row.created,
    )


@pytest.mark.part("P7")
def test_a_removal_is_at_once_and_for_all(host: NewHost, azure: AzureFiles, clock: Callable[[], float]) -> None:
    one, two = host("one"), host("two")
    one.create("data", {})
    two.create("data", {})

    one.remove("data")
    gone = shares(azure)
    two.remove("data")
    two.create("data", {})
    clock.now += 2 * one.host.trash_grace  # type: ignore[attr-defined]
    reconcile(one)
    reconcile(two)

    assert gone == 0
    # A trash of the first host's would have been emptied by now: over the second host's new volume.
    assert shares(azure) == 1
    with pytest.raises(NotFound, match="in the trash"):
        one.restore("data")


def test_a_removal_that_the_service_refuses_changes_nothing(host: NewHost, azure: AzureFiles) -> None:
    one = host("one")
    share = "sharedvol"
    one.create("data", {"share": share})
    azure.shares.refusals[share] = (403, "AccountIsDisabled")

    with pytest.raises(Unavailable):
        one.remove("data")

    azure.shares.refusals.clear()
    assert one.get("data").phase == "ready"
    one.remove("data")
    assert shares(azure) == 0


@pytest.mark.parametrize("where", ["remove: recorded", "delete: removed"])
@pytest.mark.parametrize("then", ["reconciled", "created again"])
def test_a_removal_that_was_killed_is_finished_before_the_name_means_another(
    host: NewHost, azure: AzureFiles, where: str, then: str
) -> None:
    def kill(place: str) -> None:
        if place == where:
            raise Killed

    host("one").create("data", {})
    with pytest.raises(Killed):
        host("one", kill).remove("data")
    again = host("one")

    if then == "created again":
        again.create("data", {})
    reconcile(again)

    left = 1 if then == "created again" else 0
    assert len(again.all()) == shares(azure) == left
    assert again.state.unfinished() == []


def test_a_creation_that_the_service_refuses_leaves_the_volume_of_another_host(
    host: NewHost, azure: AzureFiles
) -> None:
    one, two = host("one"), host("two")
    one.create("data", {})
    answer = azure.answer

    def refuse_once(request: Request) -> Reply:
        azure.answer = answer  # type: ignore[method-assign]
        return Refused(403, "AuthenticationFailed").reply()

    azure.answer = refuse_once  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        two.create("data", {})
    reconcile(two)

    assert two.state.unfinished() == []
    assert two.all() == []
    assert shares(azure) == 1


def test_a_creation_with_other_options_leaves_the_volume_of_another_host(host: NewHost, azure: AzureFiles) -> None:
    one, two = host("one"), host("two")
    one.create("data", {"uid": "1000"})

    with pytest.raises(Conflict, match="'uid'"):
        two.create("data", {})

    assert shares(azure) == 1
    assert two.all() == []


@pytest.mark.parametrize("place", ["create: recorded", "create: made", "create: defined"])
def test_a_host_that_dies_in_a_creation_finishes_it_later_or_leaves_it_to_the_others(
    host: NewHost, azure: AzureFiles, place: str, tmp_path: Path
) -> None:
    # Another process, so that nothing of Python's undoes anything.
    dying = multiprocessing.get_context("spawn").Process(
        target=_die_at, args=(tmp_path / "two", settings(azure), place)
    )
    dying.start()
    dying.join()
    assert dying.exitcode == 9
    one, two = host("one"), host("two")
    one.create("data", {})

    reconcile(two)

    assert shares(azure) == 1
    assert [row.name for row in two.all()] == ["data"]


def test_a_volume_that_another_host_has_grown_is_mounted_all_the_same(host: NewHost) -> None:
    one, two = host("one"), host("two")
    one.create("data", {"size": "1g"})
    two.create("data", {"size": "1g"})
    one.update("data", {"size": "3g"})

    assert two.mount("data", holder()).name == "data"


def names(service: VolumeService) -> list[str]:
    service.everywhere.fresh(10)
    return [row.name for row in service.all()]


@pytest.mark.feature("P3")
def test_every_host_lists_what_any_host_made_and_can_remove_it(host: NewHost, azure: AzureFiles) -> None:
    one, two, three = host("one"), host("two"), host("three")
    one.create("data", {"uid": "1000"}, {"team": "blue"})

    assert names(two) == names(three) == ["data"]
    assert two.get("data") == replace(one.get("data"), key=two.get("data").key)
    two.remove("data")

    assert names(one) == names(three) == []
    assert shares(azure) == 0


def test_a_volume_in_use_is_not_forgotten_because_another_host_removed_it(host: NewHost, azure: AzureFiles) -> None:
    one, two = host("one"), host("two")
    one.create("data", {})
    one.mount("data", Holder("docker", "c1", os.getpid(), start_time(os.getpid()) or 0))
    names(two)
    two.remove("data")

    assert names(one) == ["data"]


def test_growth_and_a_new_volume_of_the_name_are_known_to_the_others(host: NewHost, azure: AzureFiles, clock) -> None:
    one, two = host("one"), host("two")
    one.create("data", {"size": "1g"})
    names(two)
    one.update("data", {"size": "5g"})
    names(two)
    assert two.get("data").options == {"size": "5g"}

    one.remove("data")
    clock.now += 60
    one.create("data", {"uid": "7"})
    names(two)

    assert two.get("data").options == {"uid": "7"}


def test_a_service_that_is_away_takes_nothing_off_the_list(host: NewHost, azure: AzureFiles, tmp_path: Path) -> None:
    one = host("one")
    one.create("data", {})
    azure.answer = lambda request: Refused(500, "InternalError").reply()  # type: ignore[method-assign]

    assert names(one) == ["data"]
    no_longer_set_up = on_paper(tmp_path / "one", {}, time.time)
    assert names(no_longer_set_up) == ["data"]


def test_another_drivers_volume_of_the_name_stays_what_it_is(host: NewHost, azure: AzureFiles) -> None:
    one, two = host("one"), host("two")
    two.create("data", {"driver": "local"})
    one.create("data", {})

    assert names(two) == ["data"]
    assert two.get("data").driver == "local"


def test_whoever_asks_during_a_look_gets_one_that_began_later(host: NewHost, azure: AzureFiles) -> None:
    """And a hundred who ask during a look that hangs cost one more look."""
    one, two = host("one"), host("two")
    one.create("first", {})
    answer, looks, go_on = azure.answer, [], threading.Event()

    def slowly(request: Request) -> Reply:
        looks.append(request)
        go_on.wait(10)
        return answer(request)

    azure.answer = slowly  # type: ignore[method-assign]
    for _ in range(100):
        assert not two.everywhere.fresh(0.001)
    before = sum(thread.name == "volumes of all hosts" for thread in threading.enumerate())
    go_on.set()
    assert two.everywhere.fresh(10)

    assert before == 2
    assert len(looks) == 2
    assert [row.name for row in two.all()] == ["first"]
