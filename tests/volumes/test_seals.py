"""A password that was typed as an option is in the vault first, nowhere else, and gone with its volume."""

import json
import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from orlop.errors import Conflict, Corrupt, Invalid, Unavailable
from orlop.frontends import plugin
from orlop.mount import Mount
from orlop.state import Holder
from orlop.testing.paper import PaperMounter
from orlop.volumes import references
from orlop.volumes.driver import Volume
from orlop.volumes.reconcile import reconcile
from orlop.volumes.service import VolumeService
from orlop.volumes.vault import Vault

LITERAL = "hunter2-typed-8471"
OTHER = "swordfish-typed-5520"
NAS = {"driver": "nas", "share": "a", "password": LITERAL}
HOLDER = Holder("dockerd/0", "c1")
Reopen = Callable[..., VolumeService]


class Nas:
    """Shares of a server that asks for a password."""

    scope = "local"

    def __init__(self, resolve: references.Resolve) -> None:
        self._resolve = resolve
        self.broken = ""
        self.seen: list[Volume] = []

    def options(self) -> Mapping[str, str]:
        return {"share": "its name", "password": "the account's password", "token": "another secret"}

    def secrets(self) -> Sequence[str]:
        return ("password", "token")

    def create(self, volume: Volume) -> None:
        self.seen.append(volume)
        if self.broken:
            raise Unavailable(self.broken)
        for option in self.secrets():
            if option in volume.options:
                references.check(option, volume.options[option])

    def remove(self, volume: Volume) -> None:
        self._resolve("password", volume.options["password"])  # a server that deletes asks for it too

    def attach(self, volume: Volume) -> Sequence[Mount]:
        password = self._resolve("password", volume.options["password"]).decode()
        return [Mount("cifs", f"//nas/{volume.options['share']}", ("ro",), (("password", password),))]

    def detach(self, volume: Volume) -> None:
        pass


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(tmp_path / "vault", tmp_path / "vault.key")


@pytest.fixture
def nas(vault: Vault) -> Nas:
    return Nas(references.resolver(vault))


@pytest.fixture
def service(reopened: Reopen, nas: Nas) -> VolumeService:
    return reopened(nas=nas)


def files_with(folder: Path, text: str) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes())


def test_it_is_recorded_nowhere_and_reaches_the_mount(
    service: VolumeService, mounter: PaperMounter, vault: Vault, tmp_path: Path
) -> None:
    row = service.create("data", NAS)
    place = service.mount("data", HOLDER)

    (name,) = vault.names()
    assert name.startswith("data~password~")
    assert row.options == {"share": "a", "password": f"secret:{name}"}
    assert json.loads((tmp_path / "volumes/data/volume.json").read_text())["options"] == row.options
    assert mounter.mounts[place][0].secrets == (("password", LITERAL),)
    assert list(files_with(tmp_path, LITERAL)) == []


def test_the_driver_never_sees_it_before_it_resolves_it(service: VolumeService, nas: Nas) -> None:
    service.create("data", {**NAS, "token": OTHER})

    (seen,) = nas.seen
    assert LITERAL not in repr(seen)
    assert OTHER not in repr(seen)


def test_no_answer_event_or_log_line_shows_it(
    service: VolumeService, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    mount = {"Name": "data", "ID": "c1"}
    calls = [
        ("Create", {"Name": "data", "Opts": NAS}),
        ("Create", {"Name": "data", "Opts": NAS}),
        ("Create", {"Name": "data", "Opts": {**NAS, "password": OTHER}}),
        ("Create", {"Name": "bad", "Opts": {**NAS, "pasword": LITERAL}}),
        ("Create", {"Name": "bad/name", "Opts": NAS}),
        ("Get", mount), ("List", {}), ("Mount", mount), ("Path", mount), ("Unmount", mount), ("Remove", mount),
    ]  # fmt: skip

    answers = [
        plugin.answer(service, f"/VolumeDriver.{verb}", json.dumps(body).encode(), HOLDER) for verb, body in calls
    ]

    assert [status for status, _ in answers] == [200, 200, 500, 500, 500, *[200] * 6]
    told = [repr(answers), caplog.text, repr([vars(record) for record in caplog.records]), repr(service.state.events())]
    assert [secret in text for text in told for secret in (LITERAL, OTHER)] == [False] * 8
    assert "secret:data~password~" in repr(answers[5])
    assert len(caplog.records) >= 4


def test_creating_again_with_the_same_is_fine_and_keeps_one(service: VolumeService, vault: Vault) -> None:
    first = service.create("data", NAS)

    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(lambda _: service.create("data", NAS), range(16)))

    assert all(row == first for row in rows)
    assert len(vault.names()) == 1


@pytest.mark.parametrize(
    "changed",
    [{"password": OTHER}, {"password": "secret:mine"}, {"password": ""}, {"token": OTHER}, {"password": None}],
)
def test_creating_again_with_another_is_a_conflict_that_shows_neither(
    service: VolumeService, vault: Vault, changed: dict[str, str | None]
) -> None:
    service.create("data", NAS)
    options = {name: text for name, text in (NAS | changed).items() if text is not None}

    with pytest.raises(Conflict, match=r"'data' exists with another secret in option '(password|token)'") as caught:
        service.create("data", options)

    assert LITERAL not in str(caught.value)
    assert OTHER not in str(caught.value)
    assert len(vault.names()) == 1


def test_a_reference_is_recorded_as_it_is_and_the_secret_is_its_owners(service: VolumeService, vault: Vault) -> None:
    vault.put("mine", LITERAL.encode())
    row = service.create("data", {**NAS, "password": "secret:mine"})
    again = service.create("data", {**NAS, "password": "secret:mine"})

    service.remove("data")
    service.purge(service.state.unfinished()[0])

    assert row.options["password"] == again.options["password"] == "secret:mine"
    assert vault.names() == ["mine"]


def test_what_belongs_to_a_volume_cannot_be_taken_for_another(service: VolumeService, vault: Vault) -> None:
    sealed = service.create("data", NAS).options["password"]

    for options in ({**NAS, "password": sealed}, {"type": "cifs", "device": "//a/b", "o": f"ro,password={sealed}"}):
        with pytest.raises(Invalid, match="belongs to a volume and goes with it"):
            service.create("thief", options)

    assert service.create("data", {**NAS, "password": sealed}).name == "data"
    assert [row.name for row in service.all()] == ["data"]


def test_it_stays_in_the_trash_comes_back_with_the_volume_and_goes_with_the_last(
    service: VolumeService, mounter: PaperMounter, vault: Vault
) -> None:
    service.create("data", NAS)
    service.remove("data")
    service.create("data", {**NAS, "password": OTHER})
    assert len(vault.names()) == 2
    service.remove("data")
    service.purge(max(service.state.unfinished(), key=lambda row: row.key))
    assert len(vault.names()) == 1

    service.restore("data", "back")
    place = service.mount("back", HOLDER)
    assert mounter.mounts[place][0].secrets == (("password", LITERAL),)

    service.unmount("back", HOLDER)
    service.remove("back")
    service.purge(service.state.unfinished()[0])
    assert vault.names() == []


def test_a_creation_that_fails_leaves_no_secret(service: VolumeService, nas: Nas, vault: Vault) -> None:
    nas.broken = "the server is down"

    with pytest.raises(Unavailable, match="server is down"):
        service.create("data", {**NAS, "token": OTHER})

    assert vault.names() == []
    assert service.state.unfinished() == []


def test_a_key_that_was_exchanged_is_an_error_that_names_the_secret_only(
    service: VolumeService, tmp_path: Path
) -> None:
    service.create("data", NAS)
    (tmp_path / "vault.key").write_bytes(bytes(32))

    for verb in (lambda: service.create("data", NAS), lambda: service.mount("data", HOLDER)):
        with pytest.raises(Corrupt, match=r"secret 'data~password~[0-9a-f]*' cannot be read") as caught:
            verb()

        assert LITERAL not in str(caught.value)


def test_any_name_and_any_bytes_can_be_sealed_but_not_what_is_no_text(service: VolumeService) -> None:
    row = service.create("a" * 255, {**NAS, "token": "naïve ☃ \udcff"})

    assert service.create("a" * 255, {**NAS, "token": "naïve ☃ \udcff"}) == row
    for name in ("data", "a" * 255):
        with pytest.raises(Invalid, match="holds characters that are none"):
            service.create(name, {**NAS, "token": "\ud800"})


LIFE = """
import os, signal, sys
from pathlib import Path
from orlop import engine
from orlop.volumes import references
from tests.volumes.test_seals import NAS, Nas

def step(name):
    if name == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)

config = engine.Config(Path(sys.argv[1]), Path(sys.argv[1]), step=step, boot="boot-1")
service = engine.volumes(config)
service.drivers["nas"] = Nas(references.resolver(engine.vault(config)))
service.create("data", NAS)
service.remove("data")
service.purge(service.state.unfinished()[0])
"""


@pytest.mark.parametrize(
    ("step", "orphans", "there"),
    [
        ("create: sealed", 1, False),
        ("create: recorded", 0, True),
        ("create: made", 0, True),
        ("create: defined", 0, True),
        ("remove: recorded", 0, False),
        ("purge: recorded", 0, False),
        ("delete: removed", 0, False),
        ("delete: forgotten", 1, False),
    ],
)
def test_a_kill_leaves_at_most_what_a_sweep_deletes(
    reopened: Reopen, nas: Nas, vault: Vault, tmp_path: Path, clock, step: str, orphans: int, there: bool
) -> None:
    vault.put("mine", b"of a user")
    killed = subprocess.run([sys.executable, "-c", LIFE, tmp_path, step], cwd=Path(__file__).parents[2])
    assert killed.returncode == -signal.SIGKILL

    service = reopened(nas=nas)
    found = service.seals.orphans()
    clock.now += 10**9
    reconcile(service)
    swept = service.seals.sweep()

    assert len(found) == orphans
    assert swept == found
    assert (service.state.live("data") is not None) == there
    assert len(vault.names()) == 1 + there
    assert "mine" in vault.names()
    if there:
        assert service.mount("data", HOLDER)


def test_nothing_is_swept_while_a_definition_cannot_be_read(
    service: VolumeService, vault: Vault, tmp_path: Path
) -> None:
    service.create("data", NAS)
    with service.state.change() as change:
        change.delete("data")
    definition = tmp_path / "volumes/data/volume.json"

    assert service.seals.sweep() == []
    definition.write_text("{")
    assert service.seals.sweep() == []
    assert len(vault.names()) == 1

    definition.unlink()
    assert len(service.seals.sweep()) == 1


@pytest.mark.parametrize("moment", ["create: sealed", "delete: forgotten"])
def test_a_look_waits_while_a_secret_and_its_volume_come_or_go(reopened: Reopen, nas: Nas, moment: str) -> None:
    looks: list[Future[list[str]]] = []

    def step(name: str) -> None:
        if name == moment:
            looks.append(pool.submit(other.seals.orphans))
            wait(looks, timeout=0.3)

    service, other = reopened(step, nas=nas), reopened(nas=nas)
    with ThreadPoolExecutor(1) as pool:
        service.create("data", NAS)
        service.remove("data")
        service.purge(service.state.unfinished()[0])

    assert [look.result() for look in looks] == [[]]
