"""Files that belong to whom the volume says, on a real kernel's NFS: in containers whose user is not root."""

import pytest
from tests.guest.servers import Servers
from tests.journeys.lab import Lab

OWNER = "-o uid=1000 -o gid=7 -o filemode=0640 -o dirmode=0750"


@pytest.mark.part("D2")
def test_a_container_of_an_ordinary_user_writes_to_an_export_in_which_all_is_roots(lab: Lab, servers: Servers) -> None:
    (servers.export / "there").write_text("from the server\n")
    lab.sh(f"docker volume create -d orlop -o driver=nfs -o share=localhost:/export {OWNER} annas")
    run = "docker run --rm --net none -v annas:/v"
    work = "cat /v/there && echo new >/v/new && mkdir /v/d && stat -c '%n %u %g %a' /v /v/there /v/new /v/d"

    seen = lab.out(f'{run} -u 1000 busybox sh -c "{work}"')
    stranger = lab.refused(f"{run} -u 2000 busybox cat /v/new")
    owners = [(servers.export / name).stat().st_uid for name in ("there", "new", "d")]
    lab.sh("docker volume rm annas")

    assert seen.splitlines() == [
        "from the server",
        *("/v 1000 7 750", "/v/there 1000 7 640", "/v/new 1000 7 640", "/v/d 1000 7 750"),
    ]
    assert "Permission denied" in stranger
    assert (servers.export / "new").read_text() == "new\n"
    assert owners == [0, 0, 0]
    assert f"{lab.root}/mounts/" not in lab.inside("/proc/1/mounts").read_text()
    assert not lab.out("pgrep bindfs || true")
    assert "127.0.0.1" not in lab.out("cat /proc/fs/nfsfs/volumes"), "the kernel has let go of the server"
