"""A volume that a container writes to is cloned at once, and other containers use the clone."""

import json
import os
import sys
from collections.abc import Callable, Iterator

import pytest

from orlop.testing.engine import Engine
from orlop.testing.machine import Machine

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")

WRITER = "i=0; while :; do i=$((i+1)); echo $i 1<>/data/a; echo $i 1<>/data/b; done"


@pytest.fixture
def pool(request: pytest.FixtureRequest, machine: Machine) -> Iterator[str]:
    """The filesystem on which the volumes are."""
    disk, place = machine.folder / f"{request.param}.disk", machine.folder / "store"
    machine.run(["truncate", "-s", "2G", str(disk)])
    machine.run([f"mkfs.{request.param}", "-q", str(disk)])
    machine.run(["mkdir", "-p", str(place)])
    machine.run(["mount", "-o", "loop", str(disk), str(place)])
    yield request.param
    machine.run(["umount", "--lazy", str(place)])


@pytest.fixture
def orlop(machine: Machine) -> Callable[..., str]:
    """The command on the machine; what it prints."""
    argv, root = [sys.executable, "-m", "orlop"], ["--root", str(machine.folder / "store")]
    return lambda *words: machine.run([*argv, *words, *root]).stdout


@pytest.mark.feature("S1")
@pytest.mark.parametrize(
    ("pool", "options", "how"),
    [
        ("btrfs", [], "subvolume"),
        ("xfs", ["-o", "size=320m"], "reflink"),
        ("ext4", ["-o", "size=320m"], "copy of shadow"),
    ],
    indirect=["pool"],
)
def test_containers_use_the_clone_of_a_volume_in_use(pool, engine: Engine, serve, orlop, options, how):
    serve()
    engine.docker("volume", "create", "-d", "orlop", *options, "data")
    engine.docker("run", "-d", "--name", "writer", "-v", "data:/data", "shell", "sh", "-c", WRITER)
    engine.docker("exec", "writer", "sh", "-c", "until [ -s /data/b ]; do :; done")

    orlop("volume", "clone", "data", "copy")
    seen = engine.docker(
        "run", "--rm", "-v", "copy:/data", "shell", "sh", "-c", "cat /data/a /data/b; echo new >/data/a"
    )
    engine.docker("rm", "-f", "writer")
    engine.docker("volume", "rm", "data")
    kept = engine.docker("run", "--rm", "-v", "copy:/data", "shell", "cat", "/data/a")
    told = [
        json.loads(line) for line in orlop("system", "events", "--format", "json", "-f", "event=clone").splitlines()
    ]

    one, other = (int(line) for line in seen.stdout.split())
    assert one - other in (0, 1)
    assert kept.stdout == "new\n"
    assert [each["Actor"]["Attributes"]["how"] for each in told] == [how]
    engine.docker("volume", "rm", "copy")
