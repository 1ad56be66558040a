"""The managed plugin on a real dockerd: from ``orlop plugin build`` to its removal, and through every upgrade."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.azure_account import KEY
from tests.journeys.test_cloudstor import SETTINGS, start_azure

from orlop.cli.main import main
from orlop.testing.engine import Engine
from orlop.testing.machine import Machine
from orlop.testing.process import Process

DATA = "var/lib/orlop-plugin"
REGISTRY = """\
version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}}}}}
http: {{addr: 127.0.0.1:5000}}
"""
Docker = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("plugin") / "orlop"
    done = CliRunner().invoke(main, ["plugin", "build", str(folder)])
    assert done.exit_code == 0, done.output
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def docker(engine: Engine, machine: Machine, built: Path) -> Iterator[Docker]:
    """Docker with the plugin ``vol`` enabled; containers and volumes go with the test."""
    (machine.root / DATA).mkdir(exist_ok=True)
    if "vol:latest" not in engine.docker("plugin", "ls", "--format", "{{.Name}}").stdout:
        engine.docker("plugin", "create", "vol", str(built))
        engine.docker("plugin", "enable", "vol")
    yield engine.docker
    for container in engine.docker("ps", "-aq").stdout.split():
        engine.docker("rm", "-f", container)
    for volume in engine.docker("volume", "ls", "-q").stdout.split():
        engine.docker("volume", "rm", volume)


def left(machine: Machine) -> list[str]:
    """Mounts of volumes, and loop devices of their images; other machines have loop devices too."""
    mounts = machine.run(["cat", "/proc/self/mounts"]).stdout.splitlines()
    images = {str(path.stat().st_ino) for path in (machine.root / "var/lib").glob("*/*/**/image")}
    assert images
    return [line for line in mounts if "/propagated-mount/" in line] + attached(machine, images)


def attached(machine: Machine, images: set[str]) -> list[str]:
    """The loop devices of images with these inode numbers."""
    loops = machine.run(["losetup", "-l", "-n", "-O", "BACK-INO,BACK-FILE"]).stdout.splitlines()
    return [line for line in loops if line.split()[0] in images and line.endswith("/image")]


def call(machine: Machine, verb: str, **request: str) -> dict[str, str]:
    """The plugin's answer to one verb, asked without Docker, which would refuse by itself."""
    (socket,) = (machine.root / "run/docker/plugins").glob("*/orlop.sock")
    argv = ["curl", "-sS", "--max-time", "20", "--unix-socket", f"/run/docker/plugins/{socket.parent.name}/orlop.sock"]
    return json.loads(machine.run([*argv, "-d", json.dumps(request), f"http://orlop/VolumeDriver.{verb}"]).stdout)


@pytest.mark.feature("P2")
def test_it_is_created_set_enabled_used_and_removed_and_the_data_stays(
    engine: Engine, machine: Machine, built: Path
) -> None:
    docker = engine.docker
    docker("plugin", "create", "vol", str(built))
    refused = docker("plugin", "enable", "vol", check=False)
    elsewhere = machine.root / "var/lib/elsewhere"
    elsewhere.mkdir()

    docker("plugin", "set", "vol", "DEBUG=1", "ORLOP_TRASH=7d", "data.source=/var/lib/elsewhere")
    docker("plugin", "enable", "vol")
    docker("volume", "create", "-d", "vol", "-o", "size=16m", "small")
    docker("volume", "create", "-d", "vol", "plain")
    docker("run", "--rm", "-v", "small:/s", "-v", "plain:/p", "shell", "sh", "-c", "echo one >/s/x; echo two >/p/x")
    read = docker("run", "--rm", "-v", "small:/s", "-v", "plain:/p", "shell", "cat", "/s/x", "/p/x")
    in_use = docker("plugin", "disable", "vol", check=False)
    docker("volume", "rm", "small", "plain")
    docker("plugin", "disable", "vol")
    docker("plugin", "rm", "vol")

    assert f"/{DATA}" in refused.stderr
    assert read.stdout == "one\ntwo\n"
    assert "is in use" in in_use.stderr
    assert left(machine) == []
    assert " DEBUG " in engine.log.read_text()
    # They were removed, and can be restored for the seven days that were set.
    assert (elsewhere / "volumes/plain/_data/x").read_text() == "two\n"
    assert (elsewhere / "volumes/small/image").stat().st_size == 16 << 20


@pytest.mark.part("P2", "P8")
def test_a_filesystem_that_the_host_mounts_below_the_data_is_shared_by_its_setting(
    engine: Engine, machine: Machine, built: Path
) -> None:
    docker, place = engine.docker, f"/{DATA}/shared"
    # In memory: it stands for one of the network.
    machine.run(["sh", "-ec", f"mkdir -p {place}"])
    docker("plugin", "create", "aws", str(built))
    docker("plugin", "set", "aws", "CLOUD_PLATFORM=AWS", "ORLOP_SHARED=/var/lib/orlop/shared")
    docker("plugin", "enable", "aws")
    try:
        refused = docker("volume", "create", "-d", "aws", "sharedvol1", check=False)
        machine.run(["sh", "-ec", f"mount -t tmpfs none {place}; mkdir {place}/.orlop-shared"])
        docker("volume", "create", "-d", "aws", "sharedvol1")
        docker("run", "--rm", "-v", "sharedvol1:/d", "shell", "sh", "-c", "echo text >/d/x")
        written = machine.run(["cat", f"{place}/sharedvol1/data/x"]).stdout
        docker("volume", "rm", "sharedvol1")
        machine.run(["umount", place])
    finally:
        docker("plugin", "disable", "-f", "aws")
        docker("plugin", "rm", "aws")

    assert "mount the filesystem that all hosts share" in refused.stderr
    assert written == "text\n"


@pytest.mark.part("P2")
def test_secrets_and_filesystems_of_both_kinds_and_a_copy_into_a_running_container_work(
    docker: Docker, machine: Machine
) -> None:
    (machine.folder / "file").write_text("copied\n")
    docker("volume", "create", "-d", "vol", "-o", "size=300m", "large")
    docker("volume", "create", "-d", "vol", "-o", "driver=secret", "-o", "path=env:PYTHONPATH", "keys")
    docker("run", "-d", "--name", "long", "-v", "large:/l", "-v", "keys:/k", "shell", "sleep", "1000")

    docker("cp", str(machine.folder / "file"), "long:/l/file")

    assert docker("exec", "long", "cat", "/l/file", "/k/path").stdout == "copied\n/usr/lib/orlop"
    kinds = docker("exec", "long", "grep", "-E", " /[lk] ", "/proc/mounts").stdout.splitlines()
    assert sorted(line.split()[2] for line in kinds) == ["tmpfs", "xfs"]


@pytest.mark.part("P2", "D9", "P8")
def test_a_volume_in_a_bucket_is_shipped_by_the_plugin_and_fetched_when_it_comes_back(
    docker: Docker, machine: Machine
) -> None:
    home = machine.root / DATA
    (home / "bucket").mkdir()
    docker("volume", "create", "-d", "vol", "-o", "driver=bucket", "-o", "store=/var/lib/orlop/bucket",
           "-o", "password=secret", "-o", "size=320m", "moving")  # fmt: skip
    docker("run", "--rm", "-v", "moving:/d", "shell", "sh", "-c", "echo one >/d/x; df -P /d | tail -1 >/d/df")
    assert left(machine) == []
    shutil.rmtree(home / "drivers/bucket/moving")  # as on a host that never had it

    found = docker("run", "--rm", "-v", "moving:/d", "shell", "sh", "-c", "cat /d/x; echo two >>/d/x").stdout
    docker("run", "-d", "--name", "long", "-v", "moving:/d", "shell", "sleep", "1000")
    docker("plugin", "disable", "-f", "vol")
    docker("exec", "long", "sh", "-c", "echo meanwhile >>/d/x")
    docker("plugin", "enable", "vol")
    second = docker("run", "--rm", "-v", "moving:/d", "shell", "cat", "/d/x").stdout
    docker("rm", "-f", "long")
    assert left(machine) == []
    shutil.rmtree(home / "drivers/bucket/moving")
    third = docker("run", "--rm", "-v", "moving:/d", "shell", "cat", "/d/x").stdout
    docker("volume", "rm", "moving")

    assert (found, second, third) == ("one\n", "one\ntwo\nmeanwhile\n", "one\ntwo\nmeanwhile\n")


@pytest.mark.part("P2", "P11")
def test_a_restart_of_the_plugin_leaves_a_running_container_alone_and_a_second_one_sees_the_same_files(
    docker: Docker, machine: Machine
) -> None:
    docker("volume", "create", "-d", "vol", "-o", "size=16m", "data")
    docker("run", "-d", "--name", "long", "-v", "data:/d", "shell", "sh", "-c", "echo first >/d/first; sleep 1000")

    assert len(left(machine)) >= 2
    docker("plugin", "disable", "-f", "vol")
    docker("exec", "long", "sh", "-c", "echo meanwhile >/d/meanwhile")
    docker("plugin", "enable", "vol")
    second = docker("run", "--rm", "-v", "data:/d", "shell", "sh", "-c", "cat /d/*; echo second >/d/second")

    # Two filesystems over one image would each show its own files, and destroy the other's.
    assert second.stdout == "first\nmeanwhile\n"
    assert docker("exec", "long", "cat", "/d/second").stdout == "second\n"
    assert docker("volume", "inspect", "-f", "{{.Options.size}}", "data").stdout == "16m\n"
    docker("rm", "-f", "long")
    docker("volume", "rm", "data")
    assert left(machine) == []


@pytest.mark.part("P2", "P11")
def test_it_sees_from_inside_which_processes_use_a_volume(docker: Docker, machine: Machine) -> None:
    docker("volume", "create", "-d", "vol", "-o", "size=16m", "data")
    # Its capabilities are more than the plugin's: without CAP_SYS_PTRACE it could not be looked at.
    docker("run", "-d", "--name", "long", "--cap-add=SYS_TIME", "-v", "data:/d", "shell", "sleep", "1000")

    refused = call(machine, "Remove", Name="data")

    assert "in use by process" in refused["Err"]
    assert "sleep" in refused["Err"]
    docker("exec", "long", "sh", "-c", "echo still >/d/x")
    assert docker("run", "--rm", "-v", "data:/d", "shell", "cat", "/d/x").stdout == "still\n"


@pytest.mark.part("P2", "P11")
def test_volumes_and_stopped_containers_outlive_the_plugin_that_is_removed_and_made_anew(
    docker: Docker, built: Path
) -> None:
    docker("volume", "create", "-d", "vol", "-o", "size=16m", "data")
    docker("run", "--name", "stopped", "-v", "data:/d", "shell", "sh", "-c", "cat /d/x; echo kept >/d/x")

    docker("plugin", "rm", "-f", "vol")
    docker("plugin", "create", "vol", str(built))
    docker("plugin", "enable", "vol")

    assert docker("start", "-a", "stopped").stdout == "kept\n"
    assert docker("volume", "ls", "--format", "{{.Driver}} {{.Name}}").stdout == "vol:latest data\n"


@pytest.mark.part("P2", "P11")
def test_a_restart_of_the_engine_starts_the_plugin_before_the_containers(
    docker: Docker, engine: Engine, machine: Machine
) -> None:
    docker("volume", "create", "-d", "vol", "-o", "size=16m", "data")
    docker("run", "-d", "--name", "again", "--restart=always", "-v", "data:/d", "shell",
           "sh", "-c", "trap exit TERM; echo started >>/d/log; sleep 1000 & wait")  # fmt: skip

    engine.kill9()
    engine.start()

    until = time.monotonic() + 20
    while (seen := docker("exec", "again", "cat", "/d/log", check=False)).stdout != "started\nstarted\n":
        assert time.monotonic() < until, f"{seen} {docker('ps', '-a').stdout}"
        time.sleep(0.2)


@pytest.mark.part("P2", "P11")
def test_containers_see_their_volumes_although_the_engine_has_lost_the_mount_that_it_shares_with_the_plugin(
    docker: Docker, machine: Machine
) -> None:
    # As when it still clears up after a plugin that has ended, while it starts the next one: that happens when a killed
    # engine starts anew.
    (shared,) = (machine.root / "var/lib/docker/plugins").glob("*/propagated-mount")
    place = f"/{shared.relative_to(machine.root)}"
    docker("plugin", "disable", "vol")
    machine.run(
        ["sh", "-ec", f"mount --bind {place} {place}; mount --make-private {place}; mount --make-shared {place}"]
    )
    docker("plugin", "enable", "vol")
    machine.run(["umount", place])
    docker("volume", "create", "-d", "vol", "-o", "size=16m", "one")
    docker("volume", "create", "-d", "vol", "two")

    for name in ("one", "two"):
        docker("run", "--rm", "-v", f"{name}:/d", "shell", "sh", "-c", f"echo {name} >/d/x")
    found = docker("run", "--rm", "-v", "one:/one", "-v", "two:/two", "shell", "cat", "/one/x", "/two/x").stdout

    assert found == "one\ntwo\n"
    assert left(machine) == []


@pytest.fixture
def registry(machine: Machine) -> Iterator[Process]:
    if shutil.which("docker-registry") is None:
        pytest.skip("no docker-registry here")
    config = machine.folder / "registry.yml"
    config.write_text(REGISTRY.format(folder=machine.folder / "registry"))
    process = machine.spawn(["docker-registry", "serve", str(config)], log=machine.folder / "registry.log")
    machine.run(
        ["curl", "-sS", "--retry", "20", "--retry-connrefused", "--retry-delay", "1", "http://127.0.0.1:5000/v2/"]
    )
    yield process
    process.terminate()


@pytest.mark.feature("P2")
def test_it_is_installed_under_an_alias_and_upgraded_from_a_registry(
    docker: Docker, machine: Machine, built: Path, registry: Process
) -> None:
    docker("plugin", "rm", "-f", "vol")
    for version in ("1", "2"):
        # The same program: an upgrade needs another digest only.
        config = json.loads((built / "config.json").read_text())
        (built / "config.json").write_text(json.dumps({**config, "documentation": f"version {version}"}))
        docker("plugin", "create", f"localhost:5000/orlop:{version}", str(built))
        docker("plugin", "push", f"localhost:5000/orlop:{version}")
        docker("plugin", "rm", f"localhost:5000/orlop:{version}")

    docker("plugin", "install", "--alias", "vol", "--grant-all-permissions", "localhost:5000/orlop:1", "DEBUG=1")
    docker("volume", "create", "-d", "vol", "-o", "size=16m", "data")
    docker("run", "--rm", "-v", "data:/d", "shell", "sh", "-c", "echo kept >/d/x")
    docker("plugin", "disable", "-f", "vol")
    docker("plugin", "upgrade", "--grant-all-permissions", "--skip-remote-check", "vol", "localhost:5000/orlop:2")
    docker("plugin", "enable", "vol")

    shown = json.loads(docker("plugin", "inspect", "vol").stdout)[0]
    assert shown["Config"]["Documentation"] == "version 2"
    assert "DEBUG=1" in shown["Settings"]["Env"]
    assert docker("run", "--rm", "-v", "data:/d", "shell", "cat", "/d/x").stdout == "kept\n"


@pytest.mark.part("P7", "E1")
def test_cloudstors_own_command_installs_it_for_an_account_on_azure(
    engine: Engine, machine: Machine, built: Path, registry: Process
) -> None:
    azure, shares = start_azure(machine)
    (machine.root / DATA).mkdir(exist_ok=True)
    # The engine takes no root filesystem twice.
    for plugin in engine.docker("plugin", "ls", "-q").stdout.split():
        engine.docker("plugin", "rm", "-f", plugin)
    engine.docker("plugin", "create", "localhost:5000/cloudstor:1", str(built))
    engine.docker("plugin", "push", "localhost:5000/cloudstor:1")
    engine.docker("plugin", "rm", "localhost:5000/cloudstor:1")
    settings = [f"{name}={value}" for name, value in SETTINGS.items()]

    engine.docker("plugin", "install", "--alias", "cloudstor:azure", "--grant-all-permissions",
                  "localhost:5000/cloudstor:1", *settings, "DEBUG=1")  # fmt: skip
    listed = engine.docker("plugin", "ls", "--format", "{{.Name}} {{.Enabled}}").stdout
    engine.docker("volume", "create", "-d", "cloudstor:azure", "-o", "share=sharedvol", "sharedvol1")
    made = [share.name for share in shares.iterdir()]
    engine.docker("volume", "rm", "sharedvol1")

    assert "cloudstor:azure true\n" in listed
    assert made == ["sharedvol"]
    assert list(shares.iterdir()) == []
    assert KEY not in engine.log.read_text()
    engine.docker("plugin", "rm", "-f", "cloudstor:azure")
    azure.terminate()
