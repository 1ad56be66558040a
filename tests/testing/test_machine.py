import os
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from orlop.errors import Unavailable
from orlop.testing.engine import Engine, Podman
from orlop.testing.machine import Machine

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")


@pytest.fixture
def folder(tmp_path):
    yield tmp_path
    # Removing it proves that nothing is mounted there.
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="module")
def shell_image(tmp_path_factory):
    """A root filesystem with a shell and little else, as a tar for `docker import`."""
    image = tmp_path_factory.mktemp("image") / "shell.tar"
    with tarfile.open(image, "w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
        for applet in ("sh", "sleep", "cat"):
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return image


def left_on_the_host(folder: Path) -> list[str]:
    """What mentions the folder: mounts, loop devices, processes, cgroups."""
    loops = subprocess.run(["losetup", "-a"], check=True, capture_output=True, text=True).stdout.splitlines()
    processes = subprocess.run(["ps", "axww"], check=True, capture_output=True, text=True).stdout.splitlines()
    cgroups = [
        str(path)
        for machine in folder.iterdir()
        for path in Path("/sys/fs/cgroup").glob(f"**/orlop-*-{machine.stat().st_ino}")
    ]
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    return [line for line in (*mounts, *loops, *processes) if str(folder) in line] + cgroups


def test_two_machines_and_the_host_do_not_see_each_others_mounts_and_files(folder):
    place = folder / "place"
    place.mkdir()

    with Machine(folder / "n1", "n1") as one, Machine(folder / "n2", "n2") as two:
        one.run(["mount", "-t", "tmpfs", "mine", str(place)])
        one.run(["sh", "-c", "echo one >/run/who; echo one >/etc/who; echo one >/var/lib/who; mkdir /orlop-data"])

        assert "mine" in one.run(["cat", "/proc/mounts"]).stdout
        assert "mine" not in two.run(["cat", "/proc/mounts"]).stdout
        assert not os.path.ismount(place)
        for path in ("run/who", "etc/who", "var/lib/who"):
            assert (one.root / path).read_text() == "one\n"
            assert not (two.root / path).exists()
            assert not Path("/", path).exists()
        assert (one.root / "orlop-data").is_dir()
        assert not Path("/orlop-data").exists()


def test_a_machine_has_its_name_and_only_its_own_processes_and_a_network_without_exit(folder):
    with Machine(folder / "n1", "n1") as machine:
        assert machine.run(["hostname"]).stdout == "n1\n"
        assert machine.run(["ps", "-e", "-o", "pid="]).stdout.split()[0] == "1"
        assert machine.run(["sh", "-c", "ls /sys/class/net | grep -c . ; ip -br link"]).stdout.count("UNKNOWN") == 1

        started = time.monotonic()
        lookup = machine.run(["getent", "hosts", "registry-1.docker.io"], check=False)

        assert lookup.returncode != 0
        assert time.monotonic() - started < 2


def test_power_off_takes_all_processes_and_boot_finds_the_disk_as_it_was(folder):
    with Machine(folder / "n1", "n1") as machine:
        daemon = machine.spawn(["sleep", "1000"])
        machine.run(["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo kept | tee /var/lib/kept /kept"])

        machine.power_off()

        assert not daemon.running
        assert not Path(f"/proc/{daemon.pid}").exists()
        assert left_on_the_host(folder) == []
        with pytest.raises(Unavailable, match="switched off"):
            machine.run(["true"])

        machine.boot()

        assert (machine.root / "var/lib/kept").read_text() == "kept\n"
        assert (machine.root / "kept").read_text() == "kept\n"


@pytest.mark.parametrize("place", ["/var/lib/docker", "/data", "{folder}/n1"])
def test_power_off_detaches_the_loop_devices_of_the_machine_and_no_others(folder, place):
    others = folder / "others"
    others.write_bytes(bytes(1 << 20))
    foreign = subprocess.run(
        ["losetup", "-f", "--show", others], check=True, capture_output=True, text=True
    ).stdout.strip()
    file = place.format(folder=folder) + "/image"

    try:
        with Machine(folder / "n1", "n1") as machine:
            machine.run(["sh", "-c", f"mkdir -p $(dirname {file}); truncate -s 1M {file}"])
            device = machine.run(["losetup", "-f", "--show", file]).stdout.strip()
            inode = os.stat(f"{machine.root}{file}").st_ino
            before = attached(device)

            machine.power_off()

        assert before == inode
        assert attached(device) != inode
        assert attached(foreign) == others.stat().st_ino
    finally:
        subprocess.run(["losetup", "-d", foreign], check=True)


def attached(device: str) -> int:
    """The inode of the file behind a loop device, 0 if there is none."""
    argv = ["losetup", "-n", "-O", "BACK-INO", device]
    shown = subprocess.run(argv, check=False, capture_output=True, text=True).stdout
    return int(shown.strip() or 0)


def test_a_machine_that_cannot_boot_says_why_and_leaves_nothing(folder):
    odd = folder / "no,comma"

    with pytest.raises(Unavailable, match="does not boot: mount: "):
        Machine(odd, "n1").boot()

    assert left_on_the_host(folder) == []


def test_nothing_is_left_behind_after_an_exception(folder):
    pids = []

    def story():
        with Machine(folder / "n1", "n1") as machine:
            engine = Engine(machine)
            engine.start()
            pids.extend((machine.pid, engine.pid))
            machine.run(["mount", "-t", "tmpfs", "none", str(folder)])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        story()

    assert left_on_the_host(folder) == []
    assert len(pids) == 2
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []


def test_a_machine_goes_when_the_process_that_made_it_is_killed(folder):
    program = f"""if True:
        import os, pathlib
        from orlop.testing.machine import Machine
        machine = Machine(pathlib.Path({str(folder)!r}) / "n1", "n1")
        machine.boot()
        daemon = machine.spawn(["sleep", "1000"])
        print(machine.pid, daemon.pid, flush=True)
        os.kill(os.getpid(), 9)
    """

    done = subprocess.run([shutil.which("python3"), "-c", program], capture_output=True, text=True, env=_with_source())

    pids = done.stdout.split()
    assert len(pids) == 2, done.stderr
    until = time.monotonic() + 5
    while any(_is_alive(pid) for pid in pids):
        assert time.monotonic() < until, f"still there: {pids}"
        time.sleep(0.02)

    # Its empty cgroup waits for the next one on the same disk.
    with Machine(folder / "n1", "n1"):
        pass

    assert left_on_the_host(folder) == []


def test_a_program_is_killed_when_its_time_is_over(folder):
    with Machine(folder / "n1", "n1") as machine:
        with pytest.raises(subprocess.TimeoutExpired):
            machine.run(["sleep", "1000"], timeout=0.3)

        assert "sleep" not in machine.run(["ps", "-e", "-o", "comm="]).stdout


def test_a_program_that_fails_says_what_it_wrote(folder):
    with Machine(folder / "n1", "n1") as machine, pytest.raises(subprocess.CalledProcessError) as failed:
        machine.run(["sh", "-c", "echo no such thing >&2; exit 3"])

    assert failed.value.returncode == 3
    assert "no such thing" in failed.value.__notes__[0]


def test_a_program_can_have_a_terminal(folder):
    with Machine(folder / "n1", "n1") as machine:
        done = machine.run(
            ["sh", "-c", "test -t 0 && test -t 1 && read line && echo got $line"], tty=True, input="it\n"
        )

    assert done.stdout == "got it\n"


def test_an_engine_runs_a_container_and_its_client_has_a_terminal(folder, shell_image):
    with Machine(folder / "n1", "n1") as machine:
        engine = Engine(machine)
        engine.start()
        engine.docker("import", str(shell_image), "shell")

        shown = engine.docker(
            "run", "--rm", "-v", "data:/data", "shell", "sh", "-c", "echo hello >/data/x; cat /data/x"
        )
        typed = engine.docker(
            "run", "--rm", "-it", "-v", "data:/data", "shell", "sh", tty=True, input="cat /data/x\nexit\n"
        )

        assert shown.stdout == "hello\n"
        assert "\nhello\n" in typed.stdout
        assert (machine.root / "var/lib/docker/volumes/data/_data/x").read_text() == "hello\n"
        engine.stop()
        assert not engine.answers()


def test_kill9_of_the_engine_leaves_its_containers_and_live_restore_takes_them_up_again(folder, shell_image):
    with Machine(folder / "n1", "n1") as machine:
        engine = Engine(machine, "--live-restore")
        engine.start()
        engine.docker("import", str(shell_image), "shell")
        engine.docker("run", "-d", "--name", "long", "shell", "sleep", "1000")
        inside = engine.docker("inspect", "-f", "{{.State.Pid}}", "long").stdout

        engine.kill9()

        assert not engine.answers()
        assert "sleep" in machine.run(["ps", "-o", "comm=", inside.strip()]).stdout

        engine.start()

        assert engine.docker("inspect", "-f", "{{.State.Pid}}", "long").stdout == inside
        assert engine.docker("exec", "long", "cat", "/proc/1/cmdline").stdout.startswith("sleep")


def test_an_engine_that_cannot_start_says_why(folder):
    with Machine(folder / "n1", "n1") as machine:
        engine = Engine(machine, "--no-such-option")

        with pytest.raises(Unavailable, match="no-such-option"):
            engine.start()


def test_podman_runs_a_container_with_a_volume(folder, shell_image):
    with Machine(folder / "n1", "n1") as machine:
        podman = Podman(machine)
        podman.podman("import", str(shell_image), "shell")
        podman.podman("volume", "create", "data")

        podman.podman("run", "--rm", "-v", "data:/data", "shell", "sh", "-c", "echo hello >/data/x")
        shown = podman.podman("run", "--rm", "-v", "data:/data", "shell", "cat", "/data/x")

        assert shown.stdout == "hello\n"


def _is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter if it goes while it is read
        return False


def _with_source() -> dict[str, str]:
    source = Path(__file__).parents[2] / "src"
    return {**os.environ, "PYTHONPATH": str(source)}
