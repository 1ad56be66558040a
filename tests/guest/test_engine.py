"""Volumes of network filesystems through Docker Engine: what its local driver mounts, and orlop's own drivers."""

import pytest
from tests.guest.servers import USER, Servers
from tests.journeys.lab import Lab

VOLUMES = {
    "by-address": ("--opt type=nfs --opt o=addr=127.0.0.1,rw --opt device=:/export", "export"),
    "by-name": ("--opt type=nfs --opt o=addr=localhost,rw,nfsvers=4,soft --opt device=:/export", "export"),
    "samba": ("--opt type=cifs --opt device=//127.0.0.1/share --opt o=addr=127.0.0.1,{login}", "share"),
    "nfs": ("--opt driver=nfs --opt share=localhost:/export", "export"),
    "cifs": ("--opt driver=cifs --opt share=//127.0.0.1/share --opt {login}", "share"),
}


@pytest.mark.feature("V12")
@pytest.mark.part("D2", "D3")
def test_containers_share_files_through_servers(lab: Lab, servers: Servers) -> None:
    for name, (options, _) in VOLUMES.items():
        separator = " --opt " if name == "cifs" else ","
        login = separator.join([f"username={USER}", f"password=file:{servers.password}"])
        lab.sh(f"docker volume create -d orlop {options.format(login=login)} {name}")
    write = "for each in *; do echo from $each >$each/$each || exit 1; done; sync"
    read = "for each in *; do cat $each/$each || exit 1; done"

    lab.sh(f"docker run --rm --net none -w /data {_mounted_in('/data')} busybox sh -c '{write}'")
    on_server = {name: (getattr(servers, folder) / name).read_text() for name, (_, folder) in VOLUMES.items()}
    seen = lab.out(f"docker run --rm --net none -w /data {_mounted_in('/data', ':ro')} busybox sh -c '{read}'")
    lab.sh(f"docker volume rm {' '.join(VOLUMES)}")

    assert on_server == {name: f"from {name}\n" for name in VOLUMES}
    assert seen.splitlines() == [f"from {name}" for name in sorted(VOLUMES)]
    assert f"{lab.root}/mounts/" not in lab.inside("/proc/1/mounts").read_text()


def _mounted_in(folder: str, mode: str = "") -> str:
    return " ".join(f"-v {name}:{folder}/{name}{mode}" for name in VOLUMES)
