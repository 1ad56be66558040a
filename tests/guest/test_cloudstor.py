"""Cloudstor's page from end to end: a stand-in for Azure's REST service, a real Samba, a real kernel, a real Docker."""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.azure_account import ACCOUNT, KEY
from tests.guest import by_hand
from tests.journeys.lab import Lab

from orlop.testing.waiting import eventually

# Samba wants port 445 for itself, as the kernel wants it there: another address than the other servers'.
HOST, ADDRESS = "files.standin.example", "127.0.0.2"
SETTINGS = {
    "CLOUD_PLATFORM": "AZURE",
    "AZURE_STORAGE_ACCOUNT": ACCOUNT,
    "AZURE_STORAGE_ACCOUNT_KEY": KEY,
    "AZURE_STORAGE_ENDPOINT": f"http://{HOST}:10000",
}
_PYTHON = [sys.executable, "-u", "-m"]


@pytest.fixture
def shares(lab: Lab) -> Iterator[Path]:
    """The shares of the account; a daemon that is set up for it serves the plugin ``cloudstor``."""
    folder, log = lab.folder / "azure", lab.folder / "azure.log"
    lab.sh(f"echo {ADDRESS} {HOST} >>/etc/hosts; ip address replace {ADDRESS}/8 dev lo")
    argv = [*_PYTHON, "orlop.testing.azure", str(folder), "--host", ADDRESS, "--smb"]
    azure = lab.machine.spawn(argv, log=log, env=SETTINGS)
    socket = "/run/docker/plugins/cloudstor.sock"
    argv = [*_PYTHON, "orlop", "serve", "--socket", socket, "--root", str(lab.folder / "cloudstor")]
    env = {**SETTINGS, "ORLOP_RUN": "/run/cloudstor"}
    daemon = lab.machine.spawn(argv, log=lab.folder / "cloudstor.log", env=env)
    eventually(lambda: "ready" in log.read_text() and lab.inside(socket).exists())
    yield folder / "shares"
    lab.clean()
    daemon.terminate()
    azure.terminate()
    # Docker would ask it for its volumes from now on, and wait.
    lab.inside(socket).unlink(missing_ok=True)


@pytest.mark.feature("D4", "P7")
def test_the_pages_volumes_are_shares_that_containers_write_and_read_until_they_are_removed(
    lab: Lab, shares: Path
) -> None:
    write = "echo hello >/one/file && mkdir /one/dir && echo x >/two/file && sync"
    look = "stat -c '%n %u %g %a' /one /one/dir /one/file /two /two/file"
    lab.sh("docker volume create -d cloudstor -o uid=1000 -o share=sharedvol -o size=2g one")
    lab.sh("docker volume create -d cloudstor -o gid=7 -o filemode=0640 -o dirmode=0750 two")
    names = sorted(share.name for share in shares.iterdir())

    seen = lab.out(f'docker run --rm --net none -v one:/one -v two:/two busybox sh -c "{write} && {look}"')
    read = lab.out("docker run --rm --net none -v one:/data:ro busybox cat /data/file")
    on_server = (shares / "sharedvol/file").read_text()
    shown, listed = lab.volume("one"), lab.volumes()
    lab.sh("docker volume rm one two")

    assert names == sorted([hashlib.md5(b"two").hexdigest(), "sharedvol"])
    assert seen.splitlines() == [
        *("/one 1000 0 777", "/one/dir 1000 0 777", "/one/file 1000 0 777"),
        *("/two 0 7 750", "/two/file 0 7 640"),
    ]
    assert (read, on_server) == ("hello", "hello\n")
    assert {"one", "two"} <= listed
    assert shown["Status"]["Options"] == {"uid": "1000", "share": "sharedvol", "size": "2g"}
    assert list(shares.iterdir()) == []
    assert "cloudstor/mounts/" not in lab.inside("/proc/1/mounts").read_text()


@pytest.mark.part("D4")
def test_a_share_without_room_is_an_error_in_the_container_and_with_room_again_all_goes_on(
    lab: Lab, shares: Path
) -> None:
    """A filesystem of 16 MB below the share stands for its quota: the stand-in keeps none."""
    lab.sh("docker volume create -d cloudstor -o share=small full")
    lab.sh(f"mount -t tmpfs -o size=16m none {shares}/small")
    lab.sh("docker run -d --name c1 --net none -v full:/v busybox sh -c 'echo kept >/v/kept; sleep 10000'")
    eventually(lambda: lab.out(f"cat {shares}/small/kept || true") == "kept")

    said = lab.refused("docker exec c1 dd if=/dev/zero of=/v/big bs=1M count=32 conv=fsync")
    lab.sh("docker exec c1 sh -c 'rm /v/big && echo new >/v/new && sync'")
    kept = lab.out("docker run --rm --net none -v full:/v busybox cat /v/kept /v/new")
    lab.sh(f"docker rm -f c1 && umount {shares}/small && docker volume rm full")

    assert "No space left on device" in said
    assert kept.split() == ["kept", "new"]
    assert list(shares.iterdir()) == []


@pytest.mark.part("D4")
def test_a_share_is_mounted_as_by_hand(lab: Lab, shares: Path, tmp_path: Path) -> None:
    """The kernel moves the bytes, and says of both mounts how it does: the same.

    Linux 6.1 does not say "nosharesock"; where a volume is its server's only mount, that makes no difference.
    """
    credentials = tmp_path / "credentials"
    credentials.write_text(f"username={ACCOUNT}\npassword={KEY}\n")
    lab.sh("docker volume create -d cloudstor -o share=sharedvol data")
    lab.sh("docker run -d --name c1 --net none -v data:/data busybox sleep 10000")
    ours = by_hand.of_ours(lab.machine, lab.folder / "cloudstor")
    lab.sh("docker rm -f c1")

    typed = "vers=3.0,uid=0,gid=0,file_mode=0777,dir_mode=0777,serverino,mfsymlinks,hard,nosharesock,nosuid,nodev"
    options = f"credentials={credentials},{typed}"
    theirs = by_hand.of_one_by_hand(lab.machine, "cifs", options, f"//{HOST}/sharedvol")
    lab.sh("docker volume rm data")

    assert ours == theirs
