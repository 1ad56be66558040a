"""The command line beside a real Docker Engine and the daemon: one set of volumes, whoever asks."""

import concurrent.futures
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orlop.testing.engine import Engine
from orlop.testing.machine import Machine
from orlop.testing.process import Process

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")

Orlop = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module", params=["packaged", "newer"])
def programs(request: pytest.FixtureRequest) -> Path | None:
    """The engine's: the host's own, and a newer one's."""
    return request.getfixturevalue("newer_programs") if request.param == "newer" else None


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, programs: Path | None) -> Iterator[Machine]:
    with Machine(tmp_path_factory.mktemp("both"), "both-sides") as machine:
        yield machine


@pytest.fixture(scope="module")
def orlop(machine: Machine) -> Orlop:
    """The command line on the machine."""

    def run(*words: str, check: bool = True, **more: object) -> "subprocess.CompletedProcess[str]":
        env = {"ORLOP_ROOT": str(machine.folder / "root")}
        return machine.run([sys.executable, "-m", "orlop", *words], check=check, env=env, **more)

    return run


@pytest.fixture
def daemon(machine: Machine) -> Iterator[Process]:
    server = serve(machine)
    yield server
    server.terminate()


@pytest.fixture(scope="module")
def engine(machine: Machine, programs: Path | None) -> Iterator[Engine]:
    server, engine = serve(machine), Engine(machine, programs=programs)
    engine.start()
    image = machine.folder / "shell.tar"
    with tarfile.open(image, "w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
        for applet in ("sh", "sleep", "true"):
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    engine.docker("import", str(image), "shell")
    server.terminate()
    yield engine
    engine.stop()


@pytest.fixture
def docker(
    engine: Engine, daemon: Process, orlop: Orlop
) -> Iterator[Callable[..., "subprocess.CompletedProcess[str]"]]:
    yield engine.docker
    containers = engine.docker("ps", "-aq").stdout.split()
    if containers:
        engine.docker("rm", "-f", *containers)
    orlop("volume", "prune", "-af")
    orlop("volume", "prune", "-f", "--trash")


def serve(machine: Machine) -> Process:
    env = {"ORLOP_ROOT": str(machine.folder / "root"), "ORLOP_HOLD_GRACE": "0"}
    server = machine.spawn([sys.executable, "-m", "orlop", "serve"], env=env, log=machine.folder / "serve.log")
    until = time.monotonic() + 20
    socket = machine.root / "run/docker/plugins/orlop.sock"
    while not (socket.exists() and _answers(machine)):
        assert server.running, (machine.folder / "serve.log").read_text()
        assert time.monotonic() < until
        time.sleep(0.05)
    return server


def _answers(machine: Machine) -> bool:
    url = ["curl", "-sf", "-X", "POST", "--unix-socket", "/run/docker/plugins/orlop.sock", "http://x/Plugin.Activate"]
    return machine.run(url, check=False).returncode == 0


@pytest.mark.feature("V5")
def test_a_volume_that_one_side_makes_is_seen_used_and_removed_by_the_other(docker, orlop):
    orlop("volume", "create", "ours", "--label", "a=b")
    docker("volume", "create", "-d", "orlop", "theirs")

    assert docker("volume", "ls", "-q").stdout.split() == ["ours", "theirs"]
    assert orlop("volume", "ls", "-q").stdout.split() == ["ours", "theirs"]
    docker("run", "--rm", "-v", "ours:/v", "shell", "/bin/sh", "-c", "echo kept > /v/f")
    archive = orlop("volume", "export", "ours").stdout
    assert "kept" in archive
    docker("volume", "rm", "ours")
    assert orlop("volume", "rm", "theirs").stdout == "theirs\n"
    assert docker("volume", "ls", "-q").stdout == orlop("volume", "ls", "-q").stdout == ""


@pytest.mark.feature("V5")
def test_rm_goes_through_the_engine_which_forgets_the_volume_and_its_labels(docker, orlop):
    docker("volume", "create", "-d", "orlop", "--label", "old=1", "data")

    assert orlop("volume", "rm", "data").stdout == "data\n"

    orlop("volume", "create", "data")
    assert json.loads(docker("volume", "inspect", "data").stdout)[0]["Labels"] is None


@pytest.mark.feature("V5")
@pytest.mark.parametrize("verb", [("rm", "data"), ("rm", "--dry-run", "data")])
def test_a_volume_of_a_stopped_container_is_kept_and_the_error_names_the_container(docker, orlop, verb):
    container = docker(
        "create", "--name", "web", "-v", "data:/v", "--volume-driver", "orlop", "shell", "/bin/true"
    ).stdout.strip()

    refused = orlop("volume", *verb, check=False)

    assert refused.returncode == 1
    assert refused.stderr.startswith(f"orlop: volume 'data' is in use by container web ({container[:12]})")
    assert orlop("volume", "ls", "-q").stdout == "data\n"


@pytest.mark.feature("V5")
def test_dangling_volumes_are_those_without_any_container(docker, orlop):
    docker("create", "-v", "used:/v", "--volume-driver", "orlop", "shell", "/bin/true")
    docker("volume", "create", "-d", "orlop", "free")

    assert orlop("volume", "ls", "-q", "--filter", "dangling=true").stdout == "free\n"
    assert orlop("volume", "ls", "-q", "--filter", "dangling=false").stdout == "used\n"


@pytest.mark.feature("V5")
def test_labels_that_only_docker_keeps_are_filtered_by_and_shown(docker, orlop):
    docker("volume", "create", "-d", "orlop", "--label", "tier=db", "one")
    docker("volume", "create", "-d", "orlop", "two")

    assert orlop("volume", "ls", "-q", "--filter", "label=tier=db").stdout == "one\n"
    assert orlop("volume", "inspect", "-f", "{{.Labels.tier}}", "one").stdout == "db\n"
    assert orlop("volume", "ls", "--filter", "label=tier", "--format", "{{.Labels}}").stdout == "tier=db\n"


@pytest.mark.feature("V11")
def test_prune_takes_anonymous_volumes_without_containers_and_with_a_every_unused_one(docker, orlop):
    docker("run", "-v", "/anonymous", "--volume-driver", "orlop", "--name", "gone", "shell", "/bin/true")
    docker("create", "-v", "/anonymous", "--volume-driver", "orlop", "shell", "/bin/true")
    docker("create", "-v", "used:/v", "--volume-driver", "orlop", "shell", "/bin/true")
    docker("volume", "create", "-d", "orlop", "--label", "keep=me", "labelled")
    docker("volume", "create", "-d", "orlop", "named")
    unused = json.loads(docker("inspect", "gone").stdout)[0]["Mounts"][0]["Name"]
    docker("rm", "gone")
    before = set(orlop("volume", "ls", "-q").stdout.split())

    anonymous = orlop("volume", "prune", "-f").stdout
    after = set(orlop("volume", "ls", "-q").stdout.split())
    everything = orlop("volume", "prune", "-af", "--filter", "label!=keep").stdout

    assert anonymous.startswith(f"Deleted Volumes:\n{unused}\n\nTotal reclaimed space: ")
    assert before - after == {unused}
    assert everything.startswith("Deleted Volumes:\nnamed\n\n")
    assert "used" in docker("volume", "ls", "-q").stdout.split()
    assert docker("volume", "ls", "-q").stdout == orlop("volume", "ls", "-q").stdout


@pytest.mark.feature("V10")
def test_anonymous_volumes_go_with_their_container_and_named_ones_stay(docker, orlop):
    docker("run", "--rm", "-v", "/a", "-v", "named:/n", "--volume-driver", "orlop", "shell", "/bin/true")
    assert orlop("volume", "ls", "-q").stdout == "named\n"

    docker("run", "--name", "web", "-v", "/a", "-v", "named:/n", "--volume-driver", "orlop", "shell", "/bin/true")
    assert len(orlop("volume", "ls", "-q").stdout.split()) == 2
    docker("rm", "-v", "web")

    assert orlop("volume", "ls", "-q").stdout == "named\n"


@pytest.mark.feature("V15")
def test_df_shows_each_volumes_size_and_the_containers_that_link_to_it(docker, orlop):
    orlop("volume", "create", "data")
    docker("run", "--name", "web", "-v", "data:/v", "shell", "/bin/sh", "-c", "echo x > /v/f")
    docker("create", "-v", "data:/v", "shell", "/bin/true")

    lines = orlop("system", "df", "-v").stdout.splitlines()

    assert lines[0] == "Volumes space usage:"
    assert [line.split() for line in lines[2:]] == [["VOLUME", "NAME", "LINKS", "SIZE"], ["data", "2", "4.1kB"]]


@pytest.mark.feature("V5")
def test_a_running_container_keeps_its_volume_also_if_no_engine_is_asked(docker, orlop):
    docker("run", "-d", "--name", "web", "-v", "data:/v", "--volume-driver", "orlop", "shell", "/bin/sleep", "60")

    refused = orlop("volume", "rm", "--no-engine", "data", check=False)

    assert refused.returncode == 1
    assert "'data' is in use by" in refused.stderr


def test_an_engine_that_was_named_but_does_not_answer_lets_nothing_be_pruned(docker, orlop):
    orlop("volume", "create", "data")

    refused = orlop("volume", "prune", "-af", "--engine", "/run/nobody.sock", check=False)

    assert refused.returncode == 1
    assert "'/run/nobody.sock' does not answer" in refused.stderr
    assert "--no-engine" in refused.stderr
    assert orlop("volume", "ls", "-q").stdout == "data\n"


def test_a_volume_of_another_root_goes_without_the_engines_volume_of_that_name(docker, orlop, machine):
    docker("volume", "create", "-d", "orlop", "data")
    other = ("--root", str(machine.folder / "other"))
    orlop("volume", "create", *other, "data")

    orlop("volume", "rm", *other, "data")

    assert orlop("volume", "ls", *other, "-q").stdout == ""
    assert docker("volume", "ls", "-q").stdout == "data\n"


@pytest.mark.part("E5")
def test_info_says_whether_the_daemon_answers(daemon, orlop):
    assert orlop("info").stdout.endswith("Daemon: answers on /run/docker/plugins/orlop.sock\n")

    daemon.terminate()

    assert "Daemon: does not answer on /run/docker/plugins/orlop.sock" in orlop("info").stdout


def test_without_the_daemon_volumes_are_made_and_removed_and_the_engine_agrees_afterwards(
    engine, docker, orlop, daemon, machine
):
    docker("volume", "create", "-d", "orlop", "theirs")
    docker("create", "--name", "web", "-v", "used:/v", "--volume-driver", "orlop", "shell", "/bin/true")
    daemon.terminate()

    assert orlop("volume", "create", "ours").stdout == "ours\n"
    assert orlop("volume", "rm", "theirs").stdout == "theirs\n"
    assert "container web (" in orlop("volume", "rm", "used", check=False).stderr

    again = serve(machine)
    assert docker("volume", "ls", "-q").stdout.split() == ["ours", "used"]
    docker("rm", "web")
    orlop("volume", "prune", "-af")
    again.terminate()


@pytest.mark.feature("V5")
def test_twenty_creates_of_one_name_from_both_sides_make_one_volume(docker, orlop):
    def create(number: int) -> str:
        if number % 2:
            return docker("volume", "create", "-d", "orlop", "-o", "size=16m", "one").stdout
        return orlop("volume", "create", "-o", "size=16m", "one").stdout

    with concurrent.futures.ThreadPoolExecutor(20) as threads:
        names = list(threads.map(create, range(20)))

    assert names == ["one\n"] * 20
    assert orlop("volume", "ls", "--format", "{{.Key}}").stdout == "one\n"
    assert [line.split()[2:4] for line in orlop("system", "events").stdout.splitlines()][-1] == ["create", "one"]


def test_both_sides_create_list_prune_and_remove_at_the_same_time(docker, orlop):
    def theirs(number: int) -> None:
        docker("volume", "create", "-d", "orlop", f"d{number}")
        docker("run", "--rm", "-v", f"d{number}:/v", "shell", "/bin/true")
        docker("volume", "rm", f"d{number}")

    def ours(number: int) -> None:
        orlop("volume", "create", f"o{number}")
        orlop("volume", "ls")
        orlop("volume", "prune", "-f")
        orlop("volume", "rm", f"o{number}")

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        done = [threads.submit(side, number) for number in range(6) for side in (theirs, ours)]
        for each in done:
            each.result()

    assert docker("volume", "ls", "-q").stdout == orlop("volume", "ls", "-q").stdout == ""
    assert orlop("system", "check").stdout == "all is well\n"


@pytest.mark.part("E5")
def test_events_tell_what_both_sides_did(docker, orlop):
    orlop("volume", "create", "data")
    container = docker("run", "--rm", "-v", "data:/v", "shell", "/bin/true")
    orlop("volume", "rm", "data")

    events = [
        json.loads(line)
        for line in orlop("system", "events", "-f", "volume=data", "--format", "json").stdout.splitlines()
    ]

    assert container.returncode == 0
    assert [event["Action"] for event in events][-4:] == ["create", "mount", "unmount", "remove"]
    assert events[-3]["Actor"]["Attributes"]["client"] == "dockerd/0"
