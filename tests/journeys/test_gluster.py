"""A volume of a real GlusterFS: two machines that keep every file twice, and one of them is switched off."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.testing import images
from orlop.testing.engine import Engine
from orlop.testing.machine import Machine
from orlop.testing.network import Switch
from orlop.testing.waiting import eventually

pytestmark = [pytest.mark.feature("D8"), pytest.mark.timeout(240)]


class Server:
    """A machine with glusterd and one brick."""

    def __init__(self, folder: Path, name: str, network: tuple[Switch, str]) -> None:
        self.machine = Machine(folder / name, name, network)
        self.machine.boot()
        self.brick = folder / name / "brick"
        self.brick.mkdir()
        self.log = folder / f"{name}.log"
        hosts = "printf '10.77.0.1 gl1\\n10.77.0.2 gl2\\n10.77.0.3 user\\n' >>/etc/hosts"
        # What the packages keep in /var/lib/glusterd is this machine's own.
        self.machine.run(["sh", "-ec", f"{hosts}; mkdir -p /var/lib/glusterd /run/gluster"])
        self.start()

    def start(self) -> None:
        self.machine.spawn(["glusterd", "--no-daemon"], log=self.log)
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


@pytest.fixture(scope="module")
def engine(cluster: tuple[Machine, list[Server]]) -> Iterator[Engine]:
    """Docker Engine and orlop's daemon on the machine."""
    machine, _ = cluster
    machine.run(["sh", "-ec", "mkdir -p /var/lib/orlop; mount -t tmpfs none /var/lib/orlop"])
    daemon = machine.spawn(
        [sys.executable, "-m", "orlop", "serve", "--interval", "1s"], log=machine.folder / "serve.log"
    )
    engine = Engine(machine)
    engine.start()
    engine.load(images.build("busybox"))
    yield engine
    engine.stop()
    daemon.terminate()


def orlop(machine: Machine, *words: str, check: bool = True) -> str:
    """The command, on a root of the machine's own."""
    done = machine.run([sys.executable, "-m", "orlop", *words], check=check, env={"ORLOP_NO_ENGINE": "1"}, timeout=100)
    return done.stdout + done.stderr


def test_a_container_of_an_ordinary_user_has_the_files_and_goes_on_when_either_program_dies(
    cluster: tuple[Machine, list[Server]], engine: Engine
) -> None:
    machine, servers = cluster
    owner = ["-o", "uid=1000", "-o", "gid=7", "-o", "filemode=0640", "-o", "dirmode=0750"]
    engine.docker("volume", "create", "-d", "orlop", "-o", "driver=gluster", "-o", "share=gl2:/gv", *owner, "annas")
    write = "mkdir /v/annas && echo text >/v/annas/file; stat -c '%u %g %a' /v /v/annas /v/annas/file; sleep 1000"
    engine.docker("run", "-d", "--name", "c1", "--user", "1000", "--volume", "annas:/v", "busybox", "sh", "-c", write)

    def reads() -> bool:
        done = engine.docker("exec", "c1", "cat", "/v/annas/file", check=False)
        return done.stdout == "text\n"

    eventually(reads)
    shown = engine.docker("logs", "c1").stdout.splitlines()
    stranger = engine.docker("run", "--rm", "-u", "2000", "-v", "annas:/v", "busybox", "ls", "/v", check=False)
    on_server = (servers[1].brick / "b/annas/file").stat()
    healed = []
    for program in ("glusterfs", "bindfs"):
        old = machine.run(["pgrep", "-x", program]).stdout
        machine.run(["pkill", "-9", "-x", program])
        eventually(
            lambda old=old, program=program: machine.run(["pgrep", "-x", program], check=False).stdout not in ("", old)
        )
        eventually(reads)
        healed.append(program)
    engine.docker("exec", "c1", "rm", "-r", "/v/annas")
    engine.docker("rm", "-f", "c1")
    engine.docker("volume", "rm", "annas")

    assert shown == ["1000 7 750", "1000 7 750", "1000 7 640"]
    assert "Permission denied" in stranger.stderr
    assert (on_server.st_uid, on_server.st_gid) == (0, 0)
    assert healed == ["glusterfs", "bindfs"]
    assert not machine.run(["pgrep", "-x", "bindfs|glusterfs"], check=False).stdout


def test_a_full_brick_is_an_error_in_the_container_and_with_room_again_all_goes_on(
    cluster: tuple[Machine, list[Server]], engine: Engine
) -> None:
    machine, (_, server) = cluster
    brick = server.brick.with_name("small")
    server.ask(f"mkdir {brick}; mount -t tmpfs -o size=16m none {brick}; mkdir {brick}/b")
    server.ask(f"yes | gluster volume create small gl2:{brick}/b force; gluster volume start small")
    engine.docker("volume", "create", "-d", "orlop", "-o", "driver=gluster", "-o", "share=gl2:/small", "full")
    engine.docker("run", "-d", "--name", "c2", "-v", "full:/v", "busybox", "sleep", "1000")
    engine.docker("exec", "c2", "sh", "-c", "echo kept >/v/kept")

    full = engine.docker(
        "exec", "c2", "dd", "if=/dev/zero", "of=/v/big", "bs=1M", "count=64", "conv=fsync", check=False
    )
    kept = engine.docker("run", "--rm", "-v", "full:/v", "busybox", "cat", "/v/kept").stdout
    engine.docker("exec", "c2", "sh", "-c", "rm /v/big && echo new >/v/new")
    files = {name: (server.machine.root / str(brick / "b" / name).lstrip("/")).read_text() for name in ("kept", "new")}
    engine.docker("rm", "-f", "c2")
    engine.docker("volume", "rm", "full")
    server.ask("yes | gluster volume stop small; yes | gluster volume delete small")

    assert "No space left on device" in full.stderr
    assert kept == "kept\n"
    assert files == {"kept": "kept\n", "new": "new\n"}
    assert orlop(machine, "system", "check") == "all is well\n"


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


def test_without_any_server_all_is_an_error_in_time_and_when_one_is_back_all_goes_on(
    cluster: tuple[Machine, list[Server]], engine: Engine
) -> None:
    machine, servers = cluster
    servers[0].machine.power_off()
    engine.docker("volume", "create", "-d", "orlop", "-o", "driver=gluster", "-o", "share=gl2:/gv", "used")
    engine.docker("volume", "create", "-d", "orlop", "-o", "driver=gluster", "-o", "share=gl2:/gv", "unused")
    engine.docker("run", "-d", "--name", "c3", "-v", "used:/v", "busybox", "sleep", "1000")
    engine.docker("exec", "c3", "sh", "-c", "echo before >/v/before")
    servers[1].machine.power_off()

    begun = time.monotonic()
    failed = engine.docker("exec", "c3", "cat", "/v/before", check=False)
    refused = engine.docker("run", "--rm", "-v", "unused:/v", "busybox", "true", check=False)
    took = time.monotonic() - begun
    other = engine.docker("run", "--rm", "-v", "other:/v", "--volume-driver", "orlop", "busybox", "true", check=False)
    servers[1].machine.boot()
    servers[1].start()
    servers[1].ask("gluster volume start gv force")

    assert failed.returncode != 0
    assert "by glusterfs" in refused.stderr
    assert took < 60
    assert other.returncode == 0
    eventually(lambda: engine.docker("exec", "c3", "cat", "/v/before", check=False).stdout == "before\n")
    engine.docker("exec", "c3", "sh", "-c", "echo after >/v/after")
    engine.docker("rm", "-f", "c3")
    engine.docker("volume", "rm", "used", "unused", "other")
    assert orlop(machine, "system", "check") == "all is well\n"
