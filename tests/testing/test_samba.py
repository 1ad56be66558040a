"""The stand-in's shares over real SMB: the account's name and key open them, and nothing else does."""

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.azure_account import CREDENTIALS, KEY, settings

from orlop.errors import Unavailable
from orlop.testing.azure.server import AzureFiles
from orlop.testing.samba import Samba
from orlop.volumes.azurefile import AzureFileDriver
from orlop.volumes.driver import Volume

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="smbd needs root"),
    pytest.mark.skipif(not shutil.which("smbd") or not shutil.which("smbclient"), reason="samba is not installed"),
]
VOLUME = Volume("data", "azurefile", {"share": "sharedvol"})


@pytest.fixture
def samba(tmp_path: Path) -> Iterator[Samba]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with Samba(tmp_path / "samba", CREDENTIALS, ("127.0.0.1", port)) as samba:
        yield samba


@pytest.fixture
def azure(tmp_path: Path, samba: Samba) -> Iterator[AzureFiles]:
    with AzureFiles(tmp_path / "shares", CREDENTIALS, changed=samba.export) as azure:
        yield azure


@pytest.mark.part("D4")
def test_what_one_client_writes_is_in_the_share_and_another_reads_it(
    azure: AzureFiles, samba: Samba, tmp_path: Path
) -> None:
    AzureFileDriver(settings(azure)).create(VOLUME)
    (tmp_path / "sent").write_text("hello")

    wrote = samba.client("sharedvol", f"put {tmp_path}/sent file")
    read = samba.client("sharedvol", f"get file {tmp_path}/got")

    assert (wrote.returncode, read.returncode) == (0, 0), wrote.stdout + read.stdout
    assert (tmp_path / "got").read_text() == "hello"
    assert (azure.shares.folder / "sharedvol/file").read_text() == "hello"


def test_another_key_opens_nothing(azure: AzureFiles, samba: Samba) -> None:
    AzureFileDriver(settings(azure)).create(VOLUME)

    refused = samba.client("sharedvol", "ls", key=f"{KEY[:-4]}AAA=")

    assert refused.returncode != 0
    assert "NT_STATUS_LOGON_FAILURE" in refused.stdout + refused.stderr


@pytest.mark.parametrize("option", ["-mNT1", "-mSMB2"])
def test_who_speaks_an_older_smb_than_3_is_refused(azure: AzureFiles, samba: Samba, option: str) -> None:
    AzureFileDriver(settings(azure)).create(VOLUME)

    refused = samba.client("sharedvol", "ls", options=[option])

    assert refused.returncode != 0
    assert "NT_STATUS" in refused.stdout + refused.stderr


def test_a_removed_volume_has_no_share_any_more(azure: AzureFiles, samba: Samba) -> None:
    driver = AzureFileDriver(settings(azure))
    driver.create(VOLUME)
    before = samba.client("sharedvol", "ls")

    driver.remove(VOLUME)
    after = samba.client("sharedvol", "ls")

    assert before.returncode == 0
    assert "NT_STATUS_BAD_NETWORK_NAME" in after.stdout + after.stderr


def test_a_samba_that_cannot_start_says_why(tmp_path: Path) -> None:
    samba = Samba(tmp_path / "samba", CREDENTIALS, ("127.0.0.1", 1))
    samba.config.write_text(samba.config.read_text().replace("standalone server", "no such role"))

    with pytest.raises(Unavailable, match="smb"), samba:
        pass
