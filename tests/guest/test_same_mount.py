"""Drivers ``nfs`` and ``cifs`` mount what a person would: the kernel says the same of both, so files are as fast.

It is the kernel that moves their bytes, and how is decided by what it says: type, source and options. (The test of
``azurefile`` is in test_cloudstor.py. Drivers with a program are timed by bench/driver_remote.py.)
"""

from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.guest import by_hand
from tests.guest.plugin import Plugin
from tests.guest.servers import PASSWORD, USER, Servers


@pytest.mark.part("D2")
@pytest.mark.parametrize(
    ("options", "typed"),
    [
        ({}, "vers=4.2,hard,nosuid,nodev"),
        ({"vers": "4.0"}, "vers=4.0,hard,nosuid,nodev"),
        (
            {"soft": "true", "timeo": "70", "retrans": "3", "rsize": "65536", "nconnect": "2", "ro": "true"},
            "vers=4.2,soft,timeo=70,retrans=3,rsize=65536,nconnect=2,ro,nosuid,nodev",
        ),
        # mount(8) would ask by UDP where the export is; the kernel asks by TCP, as it moves the bytes.
        ({"vers": "3", "nolock": "true"}, "vers=3,hard,nolock,mountproto=tcp,nosuid,nodev"),
    ],
    ids=["4.2", "4.0", "4.2 with options", "3"],
)
def test_an_export_is_mounted_as_by_hand(
    plugin: Plugin, servers: Servers, options: Mapping[str, str], typed: str
) -> None:
    plugin.create("data", driver="nfs", share="127.0.0.1:/export", **options)
    plugin.mount("data")
    ours = by_hand.of_ours(servers.machine, plugin.lab.root)
    plugin.unmount("data")

    theirs = by_hand.of_one_by_hand(servers.machine, "nfs", typed, "127.0.0.1:/export")

    assert ours == theirs


@pytest.mark.part("D3")
@pytest.mark.parametrize(
    ("options", "typed"),
    [
        ({}, "vers=3.1.1,uid=0,gid=0,file_mode=0755,dir_mode=0755,hard,nosuid,nodev"),
        (
            {"vers": "3.0", "uid": "7", "gid": "8", "soft": "true", "seal": "true", "mfsymlinks": "true"},
            "vers=3.0,uid=7,gid=8,file_mode=0755,dir_mode=0755,soft,echo_interval=10,seal,mfsymlinks,nosuid,nodev",
        ),
    ],
    ids=["3.1.1", "3.0 with options"],
)
def test_a_share_is_mounted_as_by_hand(
    plugin: Plugin, servers: Servers, tmp_path: Path, options: Mapping[str, str], typed: str
) -> None:
    (servers.share / "dir").mkdir()
    share = "//127.0.0.1/share/dir"
    credentials = tmp_path / "credentials"
    credentials.write_text(f"username={USER}\npassword={PASSWORD}\n")
    plugin.create("data", driver="cifs", share=share, username=USER, password=f"file:{servers.password}", **options)
    plugin.mount("data")
    ours = by_hand.of_ours(servers.machine, plugin.lab.root)
    plugin.unmount("data")

    theirs = by_hand.of_one_by_hand(servers.machine, "cifs", f"credentials={credentials},{typed}", share)

    assert ours == theirs
