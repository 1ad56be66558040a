"""A volume of a real GlusterFS: two machines that keep every file twice, and one of them is switched off."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.testing.machine import Machine
from orlop.testing.network import Switch

pytestmark = [pytest.mark.feature("D8"), pytest.mark.timeout(240)]


class Server:
    """A machine with glusterd and one brick."""

    def __init__(self, folder: Path, name: str, network: tuple[Switch, str]) -> None:
        self.machine = Machine(folder / name, name, network)
        self.machine.boot()
        self.brick = folder / name / "brick"
        self.brick.mkdir()
        hosts = "printf '10.77.0.1 gl1\\n10.77.0.2 gl2\\n10.77.0.3 user\\n' >>/etc/hosts"
        # What the packages keep in /var/lib/glusterd is this machine's own.
        self.machine.run(["sh", "-ec", f"{hosts}; mkdir -p /var/lib/glusterd /run/gluster"])
        self.machine.spawn(["glusterd", "--no-daemon"], log=folder / f"{name}.log")
        self.ask("until gluster pool list; do sleep 0.1; done")

    def ask(self, command: str) -> str:
        return self.machine.run(["timeout", "60", "sh", "-ec", command]).stdout


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, list[Server]]]:
    """A machine on a switch, and two servers with the volume ``gv`` on both."""
    folder = tmp_path_factory.mktemp("gluster")
    with Switch() as switch:
        servers = [Server(folder, f"gl{number}", (switch, f"10.77.0.{number}/24")) for number in (1, 2)]
        first = servers[0]
        first.ask("gluster peer probe gl2; until gluster pool list | grep -q 'gl2.*Connected'; do sleep 0.1; done")
        bricks = " ".join(f"gl{number}:{server.brick}/b" for number, server in enumerate(servers, 1))
        first.ask(
            f"yes | gluster volume create gv replica 2 {bricks} force; gluster volume set gv network.ping-timeout 3"
        )
        first.ask("gluster volume start gv")
        with Machine(folder / "user", "user", (switch, "10.77.0.3/24")) as machine:
            machine.run(["sh", "-ec", "printf '10.77.0.1 gl1\\n10.77.0.2 gl2\\n' >>/etc/hosts"])
            yield machine, servers
        for server in servers:
            server.machine.power_off()


def orlop(machine: Machine, *words: str, check: bool = True) -> str:
    """The command, on a root of the machine's own."""
    done = machine.run([sys.executable, "-m", "orlop", *words], check=check, env={"ORLOP_NO_ENGINE": "1"}, timeout=100)
    return done.stdout + done.stderr


def test_files_are_kept_on_both_servers_and_one_may_go(cluster: tuple[Machine, list[Server]], tmp_path: Path) -> None:
    machine, servers = cluster
    subprocess.run(["sh", "-ec", "mkdir d; echo text >d/file; tar cf in.tar d"], cwd=tmp_path, check=True)
    options = ["-o", "driver=gluster", "-o", "share=gl2:/gv", "-o", "backup-servers=gl1"]

    orlop(machine, "volume", "import", "data", f"{tmp_path}/in.tar", *options)

    assert [(server.brick / "b/d/file").read_text() for server in servers] == ["text\n", "text\n"]
    servers[0].machine.power_off()
    orlop(machine, "volume", "export", "data", "-o", f"{tmp_path}/out.tar")
    listed = subprocess.run(["tar", "xOf", "out.tar", "./d/file"], cwd=tmp_path, capture_output=True, text=True)
    assert listed.stdout == "text\n"
    assert not machine.run(["pgrep", "glusterfs"], check=False).stdout
    assert orlop(machine, "system", "check") == "all is well\n"


def test_a_volume_that_is_not_there_is_an_error_in_time(cluster: tuple[Machine, list[Server]], tmp_path: Path) -> None:
    machine, _ = cluster
    orlop(machine, "volume", "create", "none", "-o", "driver=gluster", "-o", "share=gl2:/nosuch")

    said = orlop(machine, "volume", "export", "none", "-o", f"{tmp_path}/out.tar", check=False)

    assert "mount of 'gl2:/nosuch' by glusterfs" in said
    assert not machine.run(["pgrep", "glusterfs"], check=False).stdout
