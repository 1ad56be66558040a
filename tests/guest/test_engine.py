"""Row V12: what Docker's local driver mounts, orlop's mounts too, through Docker Engine; the rest of it in journeys."""

import pytest
from tests.guest.servers import USER, Servers
from tests.journeys.lab import Lab

WRITE, READ = "'echo from a container >/data/file && sync'", "cat /data/file"


@pytest.mark.feature("V12")
@pytest.mark.parametrize(
    ("create", "folder"),
    [
        ("--opt type=nfs --opt o=addr=127.0.0.1,rw --opt device=:/export", "export"),
        ("--opt type=nfs --opt o=addr=localhost,rw,nfsvers=4,soft --opt device=:/export", "export"),
        ("--opt type=cifs --opt device=//127.0.0.1/share --opt o=addr=127.0.0.1,{login},file_mode=0777", "share"),
    ],
    ids=["nfs", "nfs-by-name", "cifs"],
)
def test_containers_share_files_through_a_server(lab: Lab, servers: Servers, create: str, folder: str) -> None:
    login = f"username={USER},password=file:{servers.password}"
    lab.sh(f"docker volume create -d orlop {create.format(login=login)} remote")

    lab.sh(f"docker run --rm --net none -v remote:/data busybox sh -c {WRITE}")
    on_server = (getattr(servers, folder) / "file").read_text()
    seen = lab.out(f"docker run --rm --net none -v remote:/data:ro busybox {READ}")
    lab.sh("docker volume rm remote")

    assert on_server == "from a container\n"
    assert seen == "from a container"
    assert _mounted(lab) == []


def _mounted(lab: Lab) -> list[str]:
    """What orlop has mounted."""
    return [line for line in lab.inside("/proc/1/mounts").read_text().splitlines() if f"{lab.root}/mounts/" in line]
