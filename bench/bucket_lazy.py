"""How soon a large bucket volume can be read on a host that has nothing of it, and how fast it is when all is there.

It has one large file and 2,000 small ones; the store is a folder on the same disk in memory. ``ORLOP_BENCH_MIB`` is the
size of the large file; 10240, where nothing else is said, needs 18 GiB of memory.
"""

import os
import sys
import time
from pathlib import Path

from bucket_use import _by_hand
from figures import Figure, alone, compare
from orlop.testing.machine import Machine
from plugin_verbs import Plugin, memory_disk, start_orlop, timed, until

SIZE = int(os.environ.get("ORLOP_BENCH_MIB", "10240"))
ROUNDS, FILES = 3, 2000
_TOKEN = "1" * 64
_READ = """
import os, sys, time
names = [f"{sys.argv[1]}/small/{number}" for number in range(int(sys.argv[2]))]
best = 0.0
for _ in range(5):
    began = time.perf_counter()
    for name in names:
        fd = os.open(name, os.O_RDONLY)
        os.read(fd, 1 << 16)
        os.close(fd)
    best = max(best, len(names) / (time.perf_counter() - began))
print(best)
"""


def measure() -> list[Figure]:
    # One copy at a time and the store; what is deleted is memory again.
    with memory_disk(f"{SIZE * 5 // 4 + 5120}M", "xfs", "loop,discard") as (machine, disk):
        machine.run(["sh", "-c", f"mkdir {disk}/bucket && echo password >{disk}/password"])
        _fill(machine, disk)
        first = [_attached(machine, disk, turn) for turn in range(ROUNDS)]
        place, plain = _complete(machine, disk), _by_hand(machine, disk)
        _small_files(machine, plain)
        rates = [(_rate(machine, place), _rate(machine, plain)) for _ in range(ROUNDS)]
    return [
        alone(f"attached anew, {SIZE} MiB: first byte of the large file", "s", first, "<= 0.5"),
        compare("small files opened and read", "files/s", *map(list, zip(*rates, strict=True)), "the same by hand",
                ">= 0.95"),
    ]  # fmt: skip


def _host(machine: Machine, disk: Path, name: str) -> Plugin:
    """An orlop of its own, which knows the volume."""
    plugin = Plugin(start_orlop(machine, disk / name, "--run", str(disk / f"{name}-run")))
    until(lambda: plugin.connect() is None)
    options = {"driver": "bucket", "store": str(disk / "bucket"), "password": f"file:{disk}/password"}
    plugin.call("Create", Name="data", Opts={**options, "size": f"{SIZE + 2048}m"})
    return plugin


def _mounted(plugin: Plugin) -> Path:
    plugin.sock.settimeout(600)
    return Path(str(plugin.call("Mount", Name="data", ID=_TOKEN)["Mountpoint"]))


def _fill(machine: Machine, disk: Path) -> None:
    plugin = _host(machine, disk, "source")
    place = _mounted(plugin)
    # A tenth of it is random, so that the store needs less room than the volume.
    block = "head -c 100K /dev/urandom; head -c 924K /dev/zero | tr '\\0' x"
    machine.run(["sh", "-c", f"for n in $(seq {SIZE}); do {block}; done >{place}/large"])
    _small_files(machine, place)
    plugin.call("Unmount", Name="data", ID=_TOKEN)
    machine.run(["rm", "-rf", str(disk / "source/drivers")])


def _small_files(machine: Machine, place: Path) -> None:
    machine.run(["sh", "-c", f"mkdir {place}/small; for n in $(seq 0 {FILES - 1}); do echo $n >{place}/small/$n; done"])


def _attached(machine: Machine, disk: Path, turn: int) -> float:
    """Seconds from the request to mount, which takes the lease, to the first byte; all processes start anew."""
    plugin = _host(machine, disk, f"host{turn}")
    place: list[Path] = []

    def read() -> None:
        place.append(_mounted(plugin))
        machine.run(["od", "-N", "1", f"{place[0]}/large"])

    seconds = timed(read)
    if turn < ROUNDS - 1:
        plugin.call("Unmount", Name="data", ID=_TOKEN)
        machine.run(["rm", "-rf", str(disk / f"host{turn}/drivers")])
    return seconds


def _complete(machine: Machine, disk: Path) -> Path:
    """The volume of the last host, when all of it is there."""
    base = disk / f"host{ROUNDS - 1}/drivers/bucket/data/base.json"
    while '"complete": true' not in machine.run(["cat", str(base)]).stdout:
        time.sleep(1)
    time.sleep(1)
    return disk / f"host{ROUNDS - 1}/mounts/data"


def _rate(machine: Machine, place: Path) -> float:
    return float(machine.run([sys.executable, "-c", _READ, str(place), str(FILES)]).stdout)
