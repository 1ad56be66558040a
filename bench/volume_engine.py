"""``docker run --rm -v`` through a real engine: with orlop's volume, with Docker's local driver, in turn."""

import sys
import time

from figures import Figure, compare
from orlop.testing import images
from orlop.testing.engine import Engine
from orlop.testing.machine import Machine
from plugin_verbs import memory_disk, until

RUNS = 25


def measure() -> list[Figure]:
    with memory_disk() as (machine, disk):
        argv = [sys.executable, "-m", "orlop", "serve", "--root", str(disk / "orlop")]
        machine.spawn(argv, log=disk.parent / "serve.log")
        until((machine.root / "run/docker/plugins/orlop.sock").exists)
        engine = Engine(machine, f"--data-root={disk}/docker")
        engine.start()
        engine.load(images.build("busybox"))
        engine.docker("volume", "create", "-d", "orlop", "ours")
        engine.docker("volume", "create", "theirs")
        pairs = [(_run(machine, "ours"), _run(machine, "theirs")) for _ in range(RUNS + 2)][2:]
        engine.stop()
    ours, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
    return [compare("docker run --rm -v", "ms", ours, theirs, "Docker's local driver", "<= 1.03")]


def _run(machine: Machine, volume: str) -> float:
    began = time.perf_counter()
    machine.run(["docker", "run", "--rm", "--net=none", "-v", f"{volume}:/data", "busybox", "true"])
    return (time.perf_counter() - began) * 1000
