"""A bucket volume in use beside the same filesystem without orlop: between shipments, and while it ships.

Every second, that is, and for five minutes as it does without options. What is synced goes on for some seconds, so that
several shipments fall into it. And what a snapshot costs the users of a volume with 50,000 files: how long they stand
still.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from figures import Figure, alone, compare
from orlop.testing import _cgroups
from orlop.testing.machine import Machine
from orlop.volumes import image
from orlop.volumes.shadow import Shadow
from plugin_verbs import Plugin, memory_disk, start_orlop, until
from volume_io import FILES, _fio, archive

ROUNDS, PAUSES = 4, 10
VOLUMES = {"between shipments": "3600", "shipping": "1"}
LONG, MINUTES = "five minutes with sync=60", 5
GOALS = {"between shipments": ">= 0.95", "shipping": ">= 0.7", LONG: ">= 0.9"}
_REST = 3.0
"""Seconds after each place, in which what it has left is shipped."""
_SQLITE = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1] + "/db", isolation_level=None)
db.execute("PRAGMA journal_mode = WAL"), db.execute("PRAGMA synchronous = FULL")
db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, text TEXT)")
began = time.perf_counter()
for number in range(6000):
    db.execute("INSERT INTO t VALUES (?, ?)", (number, "x" * 200))
print(6000 / (time.perf_counter() - began))
"""
_WRITER = """
import os, sys, time
files = [os.open(f"{sys.argv[1]}/hot{n}", os.O_RDWR | os.O_CREAT) for n in range(20)]
last, worst = time.monotonic(), 0.0
for number in iter(int, 1):
    os.pwrite(files[number % 20], b"x" * 4096, 0)
    now = time.monotonic()
    worst, last = max(worst, now - last), now
    if os.path.exists(sys.argv[2]):
        print(worst * 1000, flush=True)
        worst = 0.0
        os.unlink(sys.argv[2])
    time.sleep(0.001)
"""


def measure() -> list[Figure]:
    with memory_disk("8G", "xfs") as (machine, disk):
        plugin = Plugin(start_orlop(machine, disk / "orlop"))
        until(lambda: plugin.connect() is None)
        places = {"by hand": _by_hand(machine, disk), **_volumes(machine, plugin, disk)}
        archive(disk.parent / "files.tar")
        short = {name: place for name, place in places.items() if name != LONG}
        rounds = [_all_places(machine, short, disk.parent, turn) for turn in range(ROUNDS)]
        figures = [figure for name in VOLUMES for figure in _compared(name, rounds)]
        figures += _compared(LONG, _for_minutes(machine, {n: places[n] for n in ("by hand", LONG)}, disk.parent))
        for name in (*VOLUMES, LONG):
            plugin.call("Unmount", Name=_named(name), ID="1" * 64)
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="orlop-bench-") as folder:
        return [*figures, *_pauses(Path(folder))]


def _compared(name: str, rounds: Sequence[Mapping[str, Mapping[str, float]]]) -> list[Figure]:
    hand = "the same filesystem by hand"
    return [
        compare(f"{name}: {what}", "ops/s", [r[name][what] for r in rounds], [r["by hand"][what] for r in rounds], hand,
                GOALS[name])
        for what in rounds[0][name]
    ]  # fmt: skip


def _for_minutes(machine: Machine, places: Mapping[str, Path], folder: Path) -> list[dict[str, dict[str, float]]]:
    """Rounds without a rest, as long as it takes: shipments come when they come."""
    found, end = [], time.monotonic() + MINUTES * 60
    while time.monotonic() < end:
        names = list(places) if len(found) % 2 else list(places)[::-1]
        found.append({name: _round(machine, places[name], folder) for name in names})
    return found


def _named(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def _volumes(machine: Machine, plugin: Plugin, disk: Path) -> Mapping[str, Path]:
    machine.run(["sh", "-c", f"mkdir {disk}/bucket && echo password >{disk}/password"])
    store = {"driver": "bucket", "store": str(disk / "bucket"), "password": f"file:{disk}/password", "size": "2g"}
    found = {}
    for name, sync in (*VOLUMES.items(), (LONG, "60")):
        plugin.call("Create", Name=_named(name), Opts={**store, "sync": sync})
        found[name] = Path(str(plugin.call("Mount", Name=_named(name), ID="1" * 64)["Mountpoint"]))
    return found


def _by_hand(machine: Machine, disk: Path) -> Path:
    place = disk / "by-hand"
    machine.run(["sh", "-c", f"truncate -s 2g {disk}/img && mkfs.xfs -q {disk}/img && mkdir {place}"])
    # As orlop has its loop devices: around the host's page cache.
    device = machine.run(["losetup", "--find", "--show", "--direct-io=on", f"{disk}/img"]).stdout.strip()
    machine.run(["mount", device, str(place)])
    # While it is mounted this only lets it go with the mount.
    machine.run(["losetup", "--detach", device])
    return place


def _all_places(machine: Machine, places: Mapping[str, Path], folder: Path, turn: int) -> dict[str, dict[str, float]]:
    names = list(places)
    names = names[turn % len(names) :] + names[: turn % len(names)]
    found = {}
    for name in names:
        found[name] = _round(machine, places[name], folder)
        time.sleep(_REST)
    return found


def _round(machine: Machine, place: Path, folder: Path) -> dict[str, float]:
    """Operations (or files) a second, by what was done."""
    found = {
        "random write 4k": _fio(machine, place, "--rw=randwrite --bs=4k --size=128M --io_size=256M --end_fsync=1"),
        "synced overwrite 4k": _fio(machine, place, "--rw=write --bs=4k --size=64M --overwrite=1 --fsync=1"),
        "synced append 4k": _fio(
            machine, place, "--rw=write --bs=4k --size=64M --fsync=1 --filename=append --unlink=1"
        ),
        "SQLite commits": float(machine.run([sys.executable, "-c", _SQLITE, str(place)]).stdout),
    }
    began = time.perf_counter()
    machine.run(["sh", "-c", f"mkdir {place}/untar && tar -xf {folder}/files.tar -C {place}/untar && sync -f {place}"])
    found["unpacking"] = FILES / (time.perf_counter() - began)
    began = time.perf_counter()
    for _ in range(10):
        machine.run(["find", str(place), "-type", "f", "-newermt", "2100-01-01"])
    found["looking at every file"] = 10 * FILES / (time.perf_counter() - began)
    machine.run(["sh", "-c", f"rm -rf {place}/*"])
    return found


def _pauses(disk: Path) -> list[Figure]:
    """How long the longest wait of a writer was during each of some snapshots of 50,000 files."""
    file, group, asked = disk / "many", "orlop-bench-pauses", disk / "asked"
    image.make(file, "xfs", 1 << 30, image.Root(), thin=True)
    with image.opened(file) as root:
        data = root / image.DATA
        for number in range(50_000):
            (data / str(number % 500)).mkdir(exist_ok=True)
            (data / str(number % 500) / str(number)).write_bytes(b"x" * 300)
        shadow = Shadow(root)
        shadow.take([])
        _cgroups.make(group)
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(data), str(asked)], stdout=subprocess.PIPE, text=True
        )
        try:
            _cgroups.move(group, [writer.pid])
            assert writer.stdout
            found = [_pause(shadow, writer, asked) for _ in range(PAUSES + 1)][1:]
        finally:
            writer.kill()
            writer.wait()
            _cgroups.remove(group)
    return [alone("snapshot of 50,000 files: longest wait of a writer", "ms", found, "<= 50")]


def _pause(shadow: Shadow, writer: "subprocess.Popen[str]", asked: Path) -> float:
    asked.touch()
    assert writer.stdout
    writer.stdout.readline()
    shadow.take([writer.pid])
    asked.touch()
    return float(writer.stdout.readline())
