"""Row V12: what Docker's local driver mounts, orlop's mounts too, through Docker Engine."""

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


@pytest.mark.feature("V12")
@pytest.mark.parametrize(
    "create",
    [
        "--opt type=tmpfs --opt device=tmpfs --opt o=size=100m,uid=1000",
        "--opt type=btrfs --opt device=/dev/vdb",
        "--opt type=none --opt o=bind --opt device=/srv",
    ],
    ids=["tmpfs", "btrfs", "bind"],
)
def test_containers_share_files_of_this_host(lab: Lab, create: str) -> None:
    lab.sh("mkdir -p /srv && mkfs.btrfs --quiet --force /dev/vdb")
    lab.sh(f"docker volume create -d orlop {create} here")

    lab.sh("docker run -d --net none --name writer --init -v here:/data busybox sleep 600")
    lab.sh(f"docker exec writer sh -c {WRITE}")
    seen = lab.out(f"docker run --rm --net none -v here:/data:ro busybox {READ}")
    kind = lab.out("docker exec writer stat -f -c %T /data")
    lab.sh("docker rm -f writer; docker volume rm here")

    assert seen == "from a container"
    assert kind
    assert _mounted(lab) == []


def _mounted(lab: Lab) -> list[str]:
    """What orlop has mounted."""
    return [line for line in lab.inside("/proc/1/mounts").read_text().splitlines() if f"{lab.root}/mounts/" in line]
