"""Volumes over SSH: Docker's example of a volume driver, and what happens when the server, or sshfs, goes away."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests.journeys.lab import Lab
from tests.journeys.sshd import PASSWORD, Sshd

from orlop.kernel import processes
from orlop.testing.process import stand_still
from orlop.testing.waiting import eventually

pytestmark = [pytest.mark.feature("D5"), pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def sshd(computer: Lab) -> Iterator[Sshd]:
    server = Sshd(computer.machine, "node2")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def volume(lab: Lab, sshd: Sshd) -> Iterator[str]:
    """A volume in a folder of the server, by key; whatever happens to it, its program ends with it."""
    lab.sh(f"docker volume create -d orlop -o driver=sshfs -o sshcmd=test@node2:/home/test -o key=file:{sshd.key} v1")
    yield "v1"
    lab.sh("docker ps -aq | xargs -r docker rm -f; docker volume ls -q | xargs -r docker volume rm")
    try:
        eventually(lambda: not serving(lab), 20)
    except AssertionError:
        print(lab.out("ps -ef; cat /proc/mounts | grep ssh"))
        raise


def serving(lab: Lab) -> list[int]:
    """The sshfs processes of the machine, by the host's numbers."""
    machine = _namespace(lab.machine.pid)
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    return [pid for pid in pids if processes.command(pid) == "sshfs" and _namespace(pid) == machine]


def _namespace(pid: int) -> str:
    """In which processes ``pid`` counts itself; nowhere if it has just ended."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def test_what_a_container_writes_is_on_the_server_and_stays_there_after_rm(lab: Lab, sshd: Sshd, volume: str) -> None:
    lab.sh("docker run --rm -v v1:/app ubuntu sh -c 'mkdir /app/d && echo text >/app/d/file && ls -l /app/d'")

    assert (sshd.inside / "d/file").read_text() == "text\n"
    assert lab.out("docker run --rm -v v1:/app ubuntu cat /app/d/file") == "text"
    lab.sh("docker volume rm v1")
    assert (sshd.inside / "d/file").read_text() == "text\n"
    assert not serving(lab)


def test_dockers_example_works_as_it_is_shown_and_its_password_is_nowhere(lab: Lab, sshd: Sshd) -> None:
    lab.sh("docker volume create --driver orlop -o driver=sshfs \\\n  -o sshcmd=test@node2:/home/test \\\n  "
           f"-o password={PASSWORD} \\\n  sshvolume")  # fmt: skip
    lab.sh(
        "docker run -d --name sshfs-container --volume-driver orlop --mount src=sshvolume,target=/app,"
        f"volume-opt=driver=sshfs,volume-opt=sshcmd=test@node2:/home/test,volume-opt=password={PASSWORD} nginx:latest"
    )
    lab.sh(
        "docker exec sshfs-container touch /app/by-mount && docker run --rm -v sshvolume:/s ubuntu touch /s/by-volume"
    )

    assert (sshd.inside / "by-mount").exists()
    assert (sshd.inside / "by-volume").exists()
    # Docker shows what was typed; nothing of orlop's does.
    python = f"{sys.executable} -m orlop"
    said = lab.out(
        f"{python} volume inspect sshvolume --root {lab.root}; cat /proc/*/cmdline /proc/*/environ | tr '\\0' ' '"
    )
    kept = subprocess.run(["grep", "-rl", PASSWORD, lab.root, lab.log, lab.inside("/run/orlop")], capture_output=True)
    assert "secret:" in said
    assert PASSWORD not in said
    assert kept.stdout == b""
    assert kept.returncode == 1


def test_a_wrong_password_is_refused_at_once_and_not_shown(lab: Lab, sshd: Sshd) -> None:
    lab.sh("docker volume create -d orlop -o driver=sshfs -o sshcmd=test@node2:/home/test -o password=wrong-one v1")

    said = lab.refused("docker run --rm -v v1:/app ubuntu true", timeout=60)

    assert "Permission denied" in said or "reset by peer" in said
    assert "wrong-one" not in said + lab.log.read_text()


def test_a_server_that_went_away_is_an_error_and_one_that_came_back_is_used(lab: Lab, sshd: Sshd, volume: str) -> None:
    sshd.stop()

    assert "Connection" in lab.refused("docker run --rm -v v1:/app ubuntu true")

    sshd.start()
    lab.sh("docker run --rm -v v1:/app ubuntu touch /app/back")
    assert (sshd.inside / "back").exists()


def test_a_program_that_dies_is_replaced_under_the_running_container(lab: Lab, sshd: Sshd, volume: str) -> None:
    lab.sh("docker run -d --name c1 -v v1:/app ubuntu sleep 1000")
    lab.sh("docker exec c1 sh -c 'echo before >/app/file'")

    for word in ("once", "again"):
        (old,) = serving(lab)
        os.kill(old, signal.SIGKILL)
        # Long before the daemon looks at everything the next time.
        eventually(lambda: lab.sh("docker exec c1 cat /app/file", check=False).stdout, 15)
        lab.sh(f"docker exec c1 sh -c 'echo {word} >/app/file'")
        assert (sshd.inside / "file").read_text() == f"{word}\n"
        assert serving(lab) not in ([], [old])


def test_a_volume_whose_server_is_away_says_so_until_it_is_healed(lab: Lab, sshd: Sshd, volume: str) -> None:
    lab.sh("docker run -d --name c1 -v v1:/app ubuntu sleep 1000")
    (sshd.inside / "file").write_text("there\n")

    sshd.stop()
    os.kill(serving(lab)[0], signal.SIGKILL)
    eventually(lambda: "Connection" in str(lab.volume("v1")["Status"].get("Degraded")))
    sshd.start()
    lab.sh(f"{sys.executable} -m orlop system check --repair --root {lab.root}")

    assert lab.out("docker exec c1 cat /app/file") == "there"
    assert "Degraded" not in lab.volume("v1")["Status"]


def test_a_frozen_server_holds_up_its_own_volume_only(lab: Lab, sshd: Sshd, volume: str) -> None:
    lab.sh("docker run -d --name c1 -v v1:/app ubuntu sleep 1000")
    (program,) = serving(lab)
    stand_still(program)
    try:
        lab.sh("docker volume create -d orlop other && docker run --rm -v other:/data ubuntu touch /data/x", timeout=30)
        assert lab.volume("v1")["Name"] == "v1"
        assert "does not answer" in lab.refused("docker run --rm -v v1:/app ubuntu true", timeout=60)
    finally:
        os.kill(program, signal.SIGCONT)
    lab.sh("docker exec c1 touch /app/goes-on")
    assert (sshd.inside / "goes-on").exists()


def test_a_full_server_is_an_error_in_the_container_and_with_room_again_all_goes_on(lab: Lab, sshd: Sshd) -> None:
    lab.sh("mkdir /home/test/small && mount -t tmpfs -o size=4m,uid=$(id -u test) none /home/test/small")
    lab.sh(
        f"docker volume create -d orlop -o driver=sshfs -o sshcmd=test@node2:/home/test/small -o key=file:{sshd.key} v1"
    )
    lab.sh("docker run -d --name c1 -v v1:/app ubuntu sh -c 'echo kept >/app/kept; sleep 1000'")
    eventually((sshd.inside / "small/kept").exists)

    said = lab.refused("docker exec c1 dd if=/dev/zero of=/app/big bs=64k count=200 conv=fsync")
    lab.sh("docker run --rm -v v1:/app ubuntu cat /app/kept")
    left = lab.out("docker exec c1 stat -fc %a /app")
    lab.sh("docker exec c1 sh -c 'rm /app/big && echo new >/app/new'")

    assert "Input/output error" in said, "SFTP has no word for it"
    assert (left, (sshd.inside / "small/new").read_text(), (sshd.inside / "small/kept").read_text()) == (
        "0", "new\n", "kept\n"
    )  # fmt: skip
    lab.sh("docker rm -f c1 && docker volume rm v1 && umount /home/test/small")
