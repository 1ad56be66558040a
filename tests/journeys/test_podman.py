"""The same socket for Podman, which counts for itself: one Mount and one Unmount for all of a volume's containers."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from orlop.cli.main import main
from orlop.testing.engine import Podman
from orlop.testing.machine import Machine
from orlop.testing.process import Process

pytestmark = pytest.mark.feature("P9")


@pytest.fixture(scope="module")
def podman(machine: Machine, shell_image: Path) -> Callable[..., object]:
    """Podman, told by ``orlop install`` where orlop is."""
    podman = Podman(machine)
    CliRunner().invoke(main, ["install", "--prefix", str(machine.root)], catch_exceptions=False)
    podman.podman("import", "--quiet", str(shell_image), "shell")
    return podman.podman


def events(machine: Machine) -> list[str]:
    """What orlop's log says it did, without the times."""
    lines = (machine.folder / "serve.log").read_text().splitlines()
    return [line.split(" INFO ", 1)[1] for line in lines if " INFO " in line]


def mounted(machine: Machine, name: str) -> bool:
    return f"/mounts/{name} " in machine.run(["cat", "/proc/mounts"]).stdout


def test_two_containers_share_a_volume_and_one_that_ends_leaves_it_to_the_other(
    podman, machine: Machine, serve: Callable[..., Process]
) -> None:
    serve()
    podman("volume", "create", "--driver", "orlop", "-o", "size=16m", "-o", "uid=1000", "shared")

    first = podman("run", "-d", "-v", "shared:/data", "shell", "sleep", "1000").stdout.strip()
    podman("run", "--rm", "-v", "shared:/data", "shell", "sh", "-c", "echo hello >/data/x")
    seen = podman("exec", first, "cat", "/data/x").stdout
    owner = podman("exec", first, "stat", "-c", "%u", "/data").stdout
    inside = mounted(machine, "shared")
    podman("rm", "-f", "-t", "0", first)

    assert seen == "hello\n"
    assert owner == "1000\n"
    assert inside
    assert not mounted(machine, "shared")
    assert [event for event in events(machine) if "shared" in event] == [
        "create shared", "mount shared", "unmount shared",
    ]  # fmt: skip


def test_a_volume_is_shown_and_goes_with_rm(podman, machine: Machine, serve: Callable[..., Process]) -> None:
    serve()
    podman("volume", "create", "--driver", "orlop", "gone")

    shown = json.loads(podman("volume", "inspect", "gone").stdout)[0]
    podman("volume", "rm", "gone")

    assert (shown["Name"], shown["Driver"]) == ("gone", "orlop")
    assert "gone" not in podman("volume", "ls", "-q").stdout.split()
    assert events(machine)[-1] == "remove gone"


def test_an_option_that_orlop_does_not_know_is_named_to_the_user(podman, serve: Callable[..., Process]) -> None:
    serve()

    refused = podman("volume", "create", "--driver", "orlop", "-o", "sice=16m", "wrong", check=False)

    assert refused.returncode != 0
    assert "sice" in refused.stderr
    assert "size" in refused.stderr
    assert "wrong" not in podman("volume", "ls", "-q").stdout.split()


@pytest.mark.part("P11")
@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
def test_a_restart_between_two_runs_loses_nothing(
    podman, machine: Machine, serve: Callable[..., Process], killed: bool
) -> None:
    name = "killed" if killed else "stopped"
    daemon = serve()
    podman("volume", "create", "--driver", "orlop", "-o", "size=16m", name)
    podman("run", "--rm", "-v", f"{name}:/data", "shell", "sh", "-c", "echo kept >/data/x")
    running = podman("run", "-d", "-v", f"{name}:/data", "shell", "sleep", "1000").stdout.strip()

    daemon.kill9() if killed else daemon.terminate()
    serve()
    meanwhile = podman("exec", running, "cat", "/data/x").stdout
    podman("rm", "-f", "-t", "0", running)
    after = podman("run", "--rm", "-v", f"{name}:/data", "shell", "cat", "/data/x").stdout

    assert (meanwhile, after) == ("kept\n", "kept\n")
    assert not mounted(machine, name)
