"""Azure file shares through Azure's own SDK, against the stand-in for the service (`orlop.testing.azure`)."""

import base64
import hashlib
import json
import logging
import multiprocessing
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from tests.azure_account import ACCOUNT, CREDENTIALS, KEY, settings

from orlop.errors import Busy, Conflict, InUse, Invalid, NoSpace, NotFound, OrlopError, Unavailable
from orlop.testing.azure.server import AzureFiles
from orlop.testing.drivers import ListedDriverContract
from orlop.volumes import azure_account
from orlop.volumes.azurefile import AzureFileDriver
from orlop.volumes.driver import Listed, Resizable, Volume, VolumeDriver

MD5_OF_DATA = hashlib.md5(b"data").hexdigest()


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[AzureFiles]:
    with AzureFiles(tmp_path / "shares", CREDENTIALS) as azure:
        yield azure


@pytest.fixture
def driver(azure: AzureFiles) -> AzureFileDriver:
    return AzureFileDriver(settings(azure))


def data(**options: str) -> Volume:
    return Volume("data", "azurefile", options, {}, created="2026-01-02T03:04:05Z")


def on(azure: AzureFiles) -> set[str]:
    return {path.name for path in azure.shares.folder.glob("*")}


def make_share(azure: AzureFiles, name: str, **metadata: str) -> None:
    """A share that is there before orlop comes."""
    azure_account.Account.of(settings(azure)).make(name, metadata, None)


@pytest.mark.part("D4", "P7")
class TestContract(ListedDriverContract):
    options = {"uid": "1000", "gid": "7", "filemode": "0640", "dirmode": "0750", "size": "5g", "seal": "true"}
    refused = {
        "uid": "root",
        "gid": "-1",
        "filemode": "9",
        "dirmode": "77777",
        "size": "25",
        "vers": "2.1",
        "seal": "maybe",
        "share": "../x",
        "backing": "relocatable",
    }

    @pytest.fixture
    def driver(self, azure: AzureFiles) -> VolumeDriver:
        return AzureFileDriver(settings(azure))


# the mount


@pytest.mark.part("P7", "D4")
def test_a_volume_without_options_belongs_to_root_and_is_open_to_all_as_cloudstors_was(
    driver: AzureFileDriver, azure: AzureFiles
) -> None:
    driver.create(data())

    (mount,) = driver.attach(data())

    assert on(azure) == {MD5_OF_DATA}
    assert (mount.type, mount.source) == ("cifs", f"//127.0.0.1/{MD5_OF_DATA}")
    assert {"uid=0", "gid=0", "file_mode=0777", "dir_mode=0777", "vers=3.0", "ip=127.0.0.1"} <= set(mount.options)
    assert {"nosuid", "nodev", "serverino", "mfsymlinks", f"username={ACCOUNT}"} <= set(mount.options)
    assert "seal" not in mount.options


@pytest.mark.part("P7", "D4")
def test_cloudstors_options_become_those_of_the_mount(driver: AzureFileDriver, azure: AzureFiles) -> None:
    volume = data(uid="1000", gid="50", filemode="640", dirmode="1770", share="sharedvol", vers="3.1.1", seal="true",
                  backing="shared")  # fmt: skip
    driver.create(volume)

    (mount,) = driver.attach(volume)

    assert on(azure) == {"sharedvol"}
    assert mount.source == "//127.0.0.1/sharedvol"
    wanted = {"uid=1000", "gid=50", "file_mode=0640", "dir_mode=01770", "vers=3.1.1", "seal"}
    assert wanted <= set(mount.options)


def test_the_key_goes_where_nobody_sees_it(driver: AzureFileDriver) -> None:
    driver.create(data())

    (mount,) = driver.attach(data())

    assert mount.secrets == (("password", KEY),)
    assert KEY not in f"{mount} {mount.options} {azure_account.Account.of(driver._settings)!r}"


@pytest.mark.parametrize(
    ("endpoint", "host"),
    [("", "acct.file.core.windows.net"), ("core.cloudapi.de", "acct.file.core.cloudapi.de")],
)
@pytest.mark.part("P7")
def test_the_endpoint_names_the_cloud(endpoint: str, host: str) -> None:
    account = azure_account.Account.of(
        {"AZURE_STORAGE_ACCOUNT": "acct", "AZURE_STORAGE_ACCOUNT_KEY": KEY, "AZURE_STORAGE_ENDPOINT": endpoint}
    )

    assert account.host == host
    assert account.url == f"https://{host}"


def test_a_host_without_an_address_is_named(azure: AzureFiles) -> None:
    lost = AzureFileDriver(settings(azure, AZURE_STORAGE_ENDPOINT="http://no-such-host.invalid:1"))
    began = time.monotonic()

    with pytest.raises(Unavailable, match=r"server 'no-such-host\.invalid' has no address"):
        lost.attach(data())

    assert time.monotonic() - began < 15


# options


@pytest.mark.parametrize("share", ["ab", "a" * 64, "-ab", "ab-", "a--b", "Upper", "a_b", "a/b", "..", "a b", "a,uid=0"])
def test_names_that_azure_does_not_allow_are_refused_before_it_is_asked(
    driver: AzureFileDriver, azure: AzureFiles, share: str
) -> None:
    with pytest.raises(Invalid, match="option 'share'"):
        driver.create(data(share=share))

    assert azure.asked == []


@pytest.mark.part("P8")
def test_relocatable_volumes_are_another_drivers(driver: AzureFileDriver) -> None:
    with pytest.raises(Invalid, match="'bucket'"):
        driver.create(data(backing="relocatable"))


@pytest.mark.parametrize(("size", "gib"), [("1g", 1), ("1500m", 2), ("1m", 1), ("2.5g", 3), ("100t", 102_400)])
def test_the_quota_is_the_size_in_whole_gibibytes(
    driver: AzureFileDriver, azure: AzureFiles, size: str, gib: int
) -> None:
    driver.create(data(size=size))

    assert quota_of(azure) == gib


@pytest.mark.parametrize("size", ["25", "101t", "0"])
def test_a_size_that_cannot_be_meant_is_refused(driver: AzureFileDriver, size: str) -> None:
    with pytest.raises(Invalid, match="size"):
        driver.create(data(size=size))


def quota_of(azure: AzureFiles, share: str = MD5_OF_DATA) -> int:
    found = azure_account.Account.of(settings(azure)).look(share)
    assert found is not None
    return found.quota


# settings


@pytest.mark.parametrize("missing", ["AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_KEY"])
@pytest.mark.part("P7")
def test_a_missing_setting_is_named(azure: AzureFiles, missing: str) -> None:
    with pytest.raises(Unavailable, match=f"{missing} not set"):
        AzureFileDriver(settings(azure, **{missing: ""})).create(data())


def test_settings_can_be_references(azure: AzureFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    monkeypatch.setenv("THE_ACCOUNT", ACCOUNT)
    told = settings(azure, AZURE_STORAGE_ACCOUNT="env:THE_ACCOUNT", AZURE_STORAGE_ACCOUNT_KEY=f"file:{tmp_path}/key")

    AzureFileDriver(told).create(data())

    assert on(azure) == {MD5_OF_DATA}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("AZURE_STORAGE_ACCOUNT", "a/b"),
        ("AZURE_STORAGE_ACCOUNT_KEY", "not base64!"),
        ("AZURE_STORAGE_ENDPOINT", "core.windows.net/x?y"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(azure: AzureFiles, setting: str, value: str) -> None:
    with pytest.raises(Unavailable, match=f"setting {setting}") as caught:
        AzureFileDriver(settings(azure, **{setting: value})).create(data())

    assert "not base64!" not in str(caught.value)


@pytest.mark.part("P8")
def test_another_cloud_is_refused_with_the_drivers_that_are_for_it(azure: AzureFiles) -> None:
    with pytest.raises(Unavailable, match=r"'AWS'.*for AZURE.*'bucket'"):
        AzureFileDriver(settings(azure, CLOUD_PLATFORM="AWS")).create(data())


def test_a_host_without_an_account_has_found_nothing() -> None:
    assert not AzureFileDriver({}).is_set_up()


# one share for each volume, whoever asks


def _create(told: dict[str, str]) -> str:
    try:
        AzureFileDriver(told).create(data(uid="7"))
    except OrlopError as error:
        return str(error)
    return ""


@pytest.mark.part("D4")
def test_many_hosts_that_create_one_name_at_once_make_one_share(azure: AzureFiles) -> None:
    # Processes of their own, as on hosts of their own.
    with ProcessPoolExecutor(6, mp_context=multiprocessing.get_context("spawn")) as hosts:
        said = list(hosts.map(_create, [settings(azure)] * 12))

    assert said == [""] * 12
    assert on(azure) == {MD5_OF_DATA}
    made = [request for request in azure.asked if request.method == "PUT"]
    assert {request.share for request in made} == {MD5_OF_DATA}


def test_a_host_that_comes_between_looking_and_making_is_joined(azure: AzureFiles, driver: AzureFileDriver) -> None:
    other, asked = AzureFileDriver(settings(azure)), azure.answer

    def first_the_other(request):
        azure.answer = asked
        reply = asked(request)
        other.create(data())
        return reply

    azure.answer = first_the_other
    driver.create(data())

    assert on(azure) == {MD5_OF_DATA}
    assert [volume.name for volume in driver.found()] == ["data"]


@pytest.mark.part("P7")
def test_a_known_name_never_gets_a_second_share(azure: AzureFiles, driver: AzureFileDriver) -> None:
    driver.create(data(uid="7"))

    with pytest.raises(Conflict, match=f"'data' is share '{MD5_OF_DATA}'.*uid=7, share={MD5_OF_DATA}"):
        driver.create(data(share="another"))
    driver.create(data(uid="7", share=MD5_OF_DATA, backing="shared"))

    assert on(azure) == {MD5_OF_DATA}


def test_other_options_than_on_the_first_host_are_refused_and_harm_nothing(
    azure: AzureFiles, driver: AzureFileDriver
) -> None:
    driver.create(data(uid="1000"))

    with pytest.raises(Conflict, match="option 'uid' '1000', not '2000'"):
        driver.create(data(uid="2000"))
    # The service asks for that after a creation that did not succeed.
    driver.remove(data(uid="2000"))

    assert on(azure) == {MD5_OF_DATA}


def test_a_volume_that_has_grown_is_still_the_one_that_was_created(driver: AzureFileDriver) -> None:
    driver.create(data(size="2g"))
    driver.resize(data(size="5g"), None)

    driver.create(data(size="2g"))

    with pytest.raises(Conflict, match=r"5 GiB.*orlop volume update"):
        driver.create(data(size="6g"))


# listing


@pytest.mark.part("P7")
def test_every_host_finds_what_any_has_made(azure: AzureFiles, driver: AzureFileDriver) -> None:
    labels = {"team": "Größe ☃", "note": "two\nlines,  and \ttabs", "quote": "\"'\\\x7f"}
    volume = replace(data(uid="1000", share="sharedvol", size="2g"), labels=labels)
    driver.create(volume)
    driver.create(Volume("other", "azurefile"))
    make_share(azure, "not-ours", owner="someone")

    found = {volume.name: volume for volume in AzureFileDriver(settings(azure)).found()}

    assert found == {"data": volume, "other": Volume("other", "azurefile")}
    assert isinstance(driver, Listed)


def test_an_account_of_many_pages_is_found_whole(azure: AzureFiles, driver: AzureFileDriver) -> None:
    azure.shares.page = 3
    for number in range(10):
        driver.create(Volume(f"v{number}", "azurefile"))

    assert sorted(volume.name for volume in driver.found()) == [f"v{number}" for number in range(10)]


def test_a_definition_that_makes_no_sense_hides_no_other(
    azure: AzureFiles, driver: AzureFileDriver, caplog: pytest.LogCaptureFixture
) -> None:
    driver.create(data())
    for number, text in enumerate(("no json", "{}", '{"volume":1}', "[]", '{"options":[]}')):
        make_share(azure, f"broken{number}", orlop=text)

    found = list(driver.found())

    assert [volume.name for volume in found] == ["data"]
    assert caplog.text.count("makes no sense") == 5


def test_labels_that_do_not_fit_are_refused(driver: AzureFileDriver, azure: AzureFiles) -> None:
    with pytest.raises(Invalid, match="labels of volume 'data'"):
        driver.create(replace(data(), labels={"long": "x" * 9000}))

    assert on(azure) == set()


# shares that were there


@pytest.mark.part("P7")
def test_a_share_that_was_there_is_taken_over_with_its_files_and_kept_when_the_volume_goes(
    azure: AzureFiles, driver: AzureFileDriver
) -> None:
    make_share(azure, "precious", owner="someone")
    (azure.shares.folder / "precious/file").write_text("kept")

    driver.create(data(share="precious"))
    listed = [volume.name for volume in driver.found()]
    driver.remove(data(share="precious"))

    assert listed == ["data"]
    assert (azure.shares.folder / "precious/file").read_text() == "kept"
    assert list(driver.found()) == []
    left = azure_account.Account.of(settings(azure)).look("precious")
    assert left is not None
    assert left.metadata == {"owner": "someone"}


@pytest.mark.part("P7")
def test_a_share_that_cloudstor_itself_has_made_is_found_by_the_volumes_name(
    azure: AzureFiles, driver: AzureFileDriver
) -> None:
    make_share(azure, MD5_OF_DATA)
    (azure.shares.folder / MD5_OF_DATA / "file").write_text("kept")

    driver.create(data())
    driver.remove(data())

    assert (azure.shares.folder / MD5_OF_DATA / "file").read_text() == "kept"


def test_a_share_of_another_volume_is_not_taken(azure: AzureFiles, driver: AzureFileDriver) -> None:
    driver.create(data(share="common"))

    with pytest.raises(Conflict, match=r"share 'common'.*is volume 'data' already"):
        driver.create(Volume("other", "azurefile", {"share": "common"}))
    driver.remove(Volume("other", "azurefile", {"share": "common"}))

    assert on(azure) == {"common"}


# removing


@pytest.mark.part("P7", "D4")
def test_any_host_removes_the_share_that_another_has_made(azure: AzureFiles, driver: AzureFileDriver) -> None:
    driver.create(data())
    elsewhere = AzureFileDriver(settings(azure))

    elsewhere.remove(data())
    driver.remove(data())

    assert on(azure) == set()
    assert list(driver.found()) == []


def test_a_share_on_its_way_out_says_to_wait(azure: AzureFiles, driver: AzureFileDriver) -> None:
    azure.shares.deletion = 30
    driver.create(data())
    driver.remove(data())

    with pytest.raises(Busy, match=f"share '{MD5_OF_DATA}'.*being deleted.*try again"):
        driver.create(data())
    driver.remove(data())

    now = time.time() + 31
    azure.shares.now = lambda: now
    driver.create(data())
    assert on(azure) == {MD5_OF_DATA}


def test_a_definition_that_makes_no_sense_is_never_deleted(azure: AzureFiles, driver: AzureFileDriver) -> None:
    make_share(azure, MD5_OF_DATA, orlop="no json")

    for verb in (driver.create, driver.remove):
        with pytest.raises(OrlopError, match=f"share '{MD5_OF_DATA}' makes no sense"):
            verb(data())

    assert on(azure) == {MD5_OF_DATA}


# growing


def test_a_volume_grows_and_every_host_is_told(azure: AzureFiles, driver: AzureFileDriver) -> None:
    driver.create(data(size="2g"))

    driver.resize(data(size="4100m"), None)

    assert quota_of(azure) == 5
    assert [volume.options for volume in driver.found()] == [{"size": "4100m"}]
    assert isinstance(driver, Resizable)


def test_a_mount_on_a_host_that_writes_the_size_otherwise_changes_nothing(
    azure: AzureFiles, driver: AzureFileDriver
) -> None:
    driver.create(data(size="2g"))
    before = len([request for request in azure.asked if request.method == "PUT"])

    # As the service does at every mount.
    driver.resize(data(size="1500m"), None)

    assert len([request for request in azure.asked if request.method == "PUT"]) == before
    assert [volume.options for volume in driver.found()] == [{"size": "2g"}]


def test_a_volume_does_not_shrink(azure: AzureFiles, driver: AzureFileDriver) -> None:
    driver.create(data(size="5g"))

    with pytest.raises(Invalid, match="5 GiB already"):
        driver.resize(data(size="2g"), None)

    assert quota_of(azure) == 5


def test_a_volume_whose_share_has_gone_says_so(driver: AzureFileDriver) -> None:
    with pytest.raises(NotFound, match=f"share '{MD5_OF_DATA}'.*has gone"):
        driver.resize(data(size="2g"), None)


# what goes wrong


def test_a_wrong_key_is_said_and_never_shown(
    azure: AzureFiles, driver: AzureFileDriver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = base64.b64encode(b"another key").decode()

    with pytest.raises(
        Unavailable, match=r"share '\w+' of account 'orlopstandin'.*AZURE_STORAGE_ACCOUNT_KEY"
    ) as caught:
        AzureFileDriver(settings(azure, AZURE_STORAGE_ACCOUNT_KEY=wrong)).create(data())
    driver.create(data())

    causes = f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__cause__}"
    assert on(azure) == {MD5_OF_DATA}
    for key in (wrong, KEY):
        assert key not in causes
        assert key not in caplog.text
    assert MD5_OF_DATA in caplog.text


@pytest.mark.parametrize(
    ("status", "code", "kind", "said"),
    [
        (409, "ShareHasSnapshots", InUse, "snapshots; delete them first"),
        (403, "InsufficientAccountPermissions", Unavailable, "refuses: InsufficientAccountPermissions"),
        (403, "AccountIsDisabled", Unavailable, "AccountIsDisabled"),
        (400, "InvalidHeaderValue", Invalid, "InvalidHeaderValue"),
        (409, "ShareSizeLimitReached", NoSpace, "limit"),
        (503, "ServerBusy", Unavailable, "ServerBusy"),
    ],
)
def test_what_the_service_refuses_is_told_with_its_word_for_it(
    azure: AzureFiles, driver: AzureFileDriver, status: int, code: str, kind: type[OrlopError], said: str
) -> None:
    driver.create(data())
    azure.shares.refusals[MD5_OF_DATA] = (status, code)

    with pytest.raises(kind, match=f"share '{MD5_OF_DATA}' of account '{ACCOUNT}'.*{said}"):
        driver.remove(data())


@pytest.mark.parametrize("verb", ["create", "remove", "found"])
def test_a_service_that_is_down_is_told_soon(azure: AzureFiles, verb: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    driver = AzureFileDriver(settings(azure, AZURE_STORAGE_ENDPOINT=f"http://127.0.0.1:{port}"))
    began = time.monotonic()

    with pytest.raises(Unavailable, match=f"of account '{ACCOUNT}': no answer from http://127.0.0.1:{port}"):
        list(driver.found()) if verb == "found" else getattr(driver, verb)(data())

    assert time.monotonic() - began < 8


def test_a_service_that_never_answers_is_given_up(azure: AzureFiles) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        driver = AzureFileDriver(settings(azure, AZURE_STORAGE_ENDPOINT=url))
        began = time.monotonic()

        with pytest.raises(Unavailable, match="no answer"):
            driver.create(data())

    longest = azure_account.ATTEMPTS * (azure_account.CONNECT + azure_account.ANSWER) + 3
    assert time.monotonic() - began < longest < 29


def test_a_reply_that_was_lost_makes_no_second_share_and_no_error(azure: AzureFiles, driver: AzureFileDriver) -> None:
    answer = azure.answer

    def lose_the_first_creation(request):
        reply = answer(request)
        if request.method == "PUT":
            azure.answer = answer
            raise ConnectionResetError
        return reply

    azure.answer = lose_the_first_creation
    azure._http.handle_error = lambda *_: None
    driver.create(data())

    assert on(azure) == {MD5_OF_DATA}
    assert [volume.name for volume in driver.found()] == ["data"]


def test_nobody_who_has_no_azure_pays_for_its_sdk() -> None:
    program = (
        "import sys, pathlib; from orlop import engine; engine.drivers(engine.Config());"
        "print(sorted(name for name in sys.modules if name.startswith(('azure.', 'requests', 'cryptography'))))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_what_is_written_on_a_share_can_be_read_by_people(azure: AzureFiles, driver: AzureFileDriver) -> None:
    driver.create(data(uid="7"))

    found = azure_account.Account.of(settings(azure)).look(MD5_OF_DATA)

    assert found is not None
    assert json.loads(found.metadata["orlop"]) == {
        "volume": "data",
        "options": {"uid": "7"},
        "labels": {},
        "created": "2026-01-02T03:04:05Z",
        "made": True,
    }


def test_threads_of_one_daemon_do_not_disturb_each_other(azure: AzureFiles, driver: AzureFileDriver) -> None:
    volumes = [Volume(f"v{number}", "azurefile") for number in range(20)]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(driver.create, volumes))

    assert len(on(azure)) == 20
